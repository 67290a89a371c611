//! The steps of `plan`, one file for each concern.

pub(crate) mod children;
pub(crate) mod earlier_volumes;
pub(crate) mod form;
pub(crate) mod heal;
pub(crate) mod leadership;
pub(crate) mod mirror;
pub(crate) mod restart;
pub(crate) mod roster;
pub(crate) mod scale;
pub(crate) mod scale_down;
pub(crate) mod scale_up;
pub(crate) mod skew;
pub(crate) mod teardown;
pub(crate) mod volumes;
