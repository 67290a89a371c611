//! The tests of consensus as a whole: golden scripts and seeded random runs, over one simulated shell.

mod cluster;
mod disk;
mod print;
mod random;
mod safety;
mod script;
mod scripts;
