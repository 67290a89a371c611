//! Script tests: a stage, a wish, and the story that the plans tell.

mod check;
mod healing;
mod life;
mod objects;
mod rollout;
mod scaling;
mod volumes;
