//! One HTTP request to one member, as a probe sends it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result};

use crate::limits::ANSWER;

/// The status code and the body of `GET path`.
///
/// # Errors
/// Nobody listens, or what came back is no HTTP.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).context("connect")?;
    stream.set_read_timeout(Some(ANSWER)).context("set a timeout")?;
    // By version 1.0, since by 1.1 etcd sends long pages in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("send")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("receive")?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) =
        text.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.context("an answer without a status code")?, body.to_owned()))
}
