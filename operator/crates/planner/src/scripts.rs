//! Script tests: a stage, a wish, and the story that the plans tell.

mod check;
mod healing;
mod leaving;
mod life;
mod objects;
mod pods;
mod replacing;
mod rollout;
mod scaling;
mod transitions;
mod volumes;
