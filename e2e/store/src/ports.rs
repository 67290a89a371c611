//! Ports of the loopback interface that nobody listens on.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

use crate::limits::{PORT_END, PORT_FIRST};

/// Where the search goes on. Test binaries run one after the other, but a developer may run two at once: each begins
/// at a place of its own.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Ports between the places of two processes with neighbouring ids: more than one test uses.
const PORTS_BETWEEN: u32 = 101;

/// A port that nobody listens on. It stays free only because everybody here asks this function.
///
/// # Errors
/// All are taken.
pub fn free_port() -> Result<u16> {
    let span = PORT_END - PORT_FIRST;
    // Two test binaries that start together have neighbouring ids: a hundred ports lie between their places.
    let place = std::process::id().wrapping_mul(PORTS_BETWEEN) % u32::from(span);
    let own = u16::try_from(place).expect("less than the span");
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % span;
        let port = PORT_FIRST + (own + step) % span;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from {PORT_FIRST} to {PORT_END} is free: stop what listens there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_can_be_listened_on() {
        let (one, other) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(one, other);
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, one)).unwrap();
        assert_eq!(held.local_addr().unwrap().port(), one);
    }
}
