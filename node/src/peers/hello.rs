//! The handshake between two members: who is there, of which cluster, and what both can read.
//!
//! ```text
//!   dialler ──► "QRTE" │ wire version u16 │ purpose u8 │ cluster u64 │ from u64 │ to u64 │ incarnation u64 │ feature level u16
//!               │ length u16 │ the dialler's peer URLs, with commas between
//!   listener ─► "QRTE" │ verdict u8 │ cluster u64 │ member u64 │ feature level u16
//! ```
//!
//! A member that was removed is told so here, since nobody else talks to it any more (design §3).

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, BytesMut};
use quorate_consensus::MemberId;
use quorate_machine::{ClusterId, FeatureLevel, Incarnation};
use quorate_replica::WIRE_VERSION;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Identity;

/// The first bytes of every connection between members.
const MAGIC: &[u8; 4] = b"QRTE";

/// A peer that says nothing for so long is no member.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Peer messages, one way.
    Messages,
    /// One snapshot, one way, with an answer at its end.
    Snapshot,
    /// "Who are the members?", asked by somebody who joins and may not know the cluster id.
    Membership,
    /// Bytes that are sent back, to see how long it takes.
    Probe,
}

/// What the dialler says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The cluster that it believes both to be in; 0 only with [`Purpose::Membership`].
    pub cluster: ClusterId,
    /// Who it is; 0 only with [`Purpose::Membership`].
    pub from: MemberId,
    /// Whom it wants; 0 only with [`Purpose::Membership`].
    pub to: MemberId,
    /// The data directory that it lives from.
    pub incarnation: Incarnation,
    /// The highest feature level that it knows.
    pub feature_level: FeatureLevel,
    /// Where it listens for its peers: a listener that is behind may not have applied that it is a member.
    pub peer_urls: Vec<String>,
}

impl Hello {
    /// What this member says to a peer.
    #[must_use]
    pub fn from(identity: &Identity, purpose: Purpose, to: MemberId) -> Self {
        Self {
            purpose,
            cluster: identity.cluster,
            from: identity.member,
            to,
            incarnation: identity.incarnation,
            feature_level: identity.feature_level,
            peer_urls: identity.peer_urls.clone(),
        }
    }
}

/// What the listener makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Talk.
    Welcome,
    /// The listener belongs to another cluster.
    ForeignCluster,
    /// The listener is another member.
    NotMe,
    /// The dialler has been removed from the cluster.
    Removed,
    /// The listener speaks another version of the encoding.
    Version,
    /// The dialler is recorded with another data directory: it lost the one that it voted with.
    OtherIncarnation,
    /// The dialler does not know commands that the cluster uses already.
    FeatureLevel,
    /// The dialler was removed as far as the listener knows, but the listener does not vote and so may not send it away: the voters
    /// that remain may still need its answer to learn that the removal is committed.
    NotForMeToSay,
}

/// The listener's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it makes of the dialler.
    pub verdict: Verdict,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Who it is.
    pub member: MemberId,
    /// The highest feature level that it knows.
    pub feature_level: FeatureLevel,
}

const PURPOSES: [Purpose; 4] =
    [Purpose::Messages, Purpose::Snapshot, Purpose::Membership, Purpose::Probe];
const VERDICTS: [Verdict; 8] = [
    Verdict::Welcome,
    Verdict::ForeignCluster,
    Verdict::NotMe,
    Verdict::Removed,
    Verdict::Version,
    Verdict::OtherIncarnation,
    Verdict::FeatureLevel,
    Verdict::NotForMeToSay,
];
const HELLO_BYTES: usize = 4 + 2 + 1 + 8 * 4 + 2 + 2;

/// Bytes of peer URLs in a hello: a dozen of the longest names that DNS allows.
const PEER_URLS_BYTES_MAX: usize = 4096;

const ANSWER_BYTES: usize = 4 + 1 + 8 * 2 + 2;

fn code<T: PartialEq>(table: &[T], value: &T) -> u8 {
    let at = table.iter().position(|known| known == value).expect("the table names every value");
    u8::try_from(at).expect("tables are short")
}

impl Answer {
    /// Whether the listener knows what the cluster uses. One that does not gets nothing of it, even if it takes itself for a member:
    /// it would stop in the middle of its log instead of at its door.
    ///
    /// # Errors
    /// It does not.
    pub fn knows(&self, used: FeatureLevel) -> anyhow::Result<()> {
        ensure!(
            self.feature_level >= used,
            "the peer knows feature level {} and the cluster has reached {}: run there the version that the other members run",
            self.feature_level.0,
            used.0
        );
        Ok(())
    }
}

/// Says hello and waits for the answer.
///
/// # Errors
/// The connection failed, or the other side is no Quorate peer listener.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    hello: &Hello,
) -> anyhow::Result<Answer> {
    let peer_urls = hello.peer_urls.join(",");
    let length = u16::try_from(peer_urls.len()).unwrap_or(u16::MAX);
    ensure!(
        usize::from(length) <= PEER_URLS_BYTES_MAX,
        "this member's peer URLs are longer than {PEER_URLS_BYTES_MAX} bytes together"
    );
    let mut out = BytesMut::with_capacity(HELLO_BYTES + peer_urls.len());
    out.put_slice(MAGIC);
    out.put_u16_le(WIRE_VERSION);
    out.put_u8(code(&PURPOSES, &hello.purpose));
    out.put_u64_le(hello.cluster.0);
    out.put_u64_le(hello.from.0);
    out.put_u64_le(hello.to.0);
    out.put_u64_le(hello.incarnation.0);
    out.put_u16_le(hello.feature_level.0);
    out.put_u16_le(length);
    out.put_slice(peer_urls.as_bytes());
    stream.write_all(&out).await.context("send hello")?;
    let mut answer = [0; ANSWER_BYTES];
    tokio::time::timeout(HELLO_TIMEOUT, stream.read_exact(&mut answer))
        .await
        .context("wait for the answer to hello")?
        .context("read the answer to hello")?;
    let mut answer = &answer[..];
    check_magic(&mut answer)?;
    let verdict = *VERDICTS
        .get(usize::from(answer.get_u8()))
        .context("the peer answered with a verdict that this version does not know")?;
    Ok(Answer {
        verdict,
        cluster: ClusterId(answer.get_u64_le()),
        member: MemberId(answer.get_u64_le()),
        feature_level: FeatureLevel(answer.get_u16_le()),
    })
}

/// Reads a hello; none when the dialler speaks another version (answer it with [`Verdict::Version`]).
///
/// # Errors
/// The connection failed, or the other side is no Quorate member.
pub async fn listen<S: AsyncRead + Unpin>(stream: &mut S) -> anyhow::Result<Option<Hello>> {
    let mut fixed = [0; HELLO_BYTES];
    read(stream, &mut fixed).await?;
    let mut fixed = &fixed[..];
    check_magic(&mut fixed)?;
    if fixed.get_u16_le() != WIRE_VERSION {
        return Ok(None);
    }
    let purpose = *PURPOSES
        .get(usize::from(fixed.get_u8()))
        .context("a peer names a purpose that does not exist")?;
    let mut hello = Hello {
        purpose,
        cluster: ClusterId(fixed.get_u64_le()),
        from: MemberId(fixed.get_u64_le()),
        to: MemberId(fixed.get_u64_le()),
        incarnation: Incarnation(fixed.get_u64_le()),
        feature_level: FeatureLevel(fixed.get_u16_le()),
        peer_urls: Vec::new(),
    };
    let length = usize::from(fixed.get_u16_le());
    ensure!(length <= PEER_URLS_BYTES_MAX, "a peer names {length} bytes of peer URLs");
    let mut peer_urls = vec![0; length];
    read(stream, &mut peer_urls).await?;
    let peer_urls = String::from_utf8(peer_urls).context("a peer's URLs are no text")?;
    hello.peer_urls =
        peer_urls.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
    Ok(Some(hello))
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut [u8]) -> anyhow::Result<()> {
    tokio::time::timeout(HELLO_TIMEOUT, stream.read_exact(bytes))
        .await
        .context("wait for hello")?
        .context("read hello")?;
    Ok(())
}

fn check_magic(bytes: &mut &[u8]) -> anyhow::Result<()> {
    let mut magic = [0; 4];
    bytes.copy_to_slice(&mut magic);
    if &magic != MAGIC {
        bail!(
            "the other side is not a Quorate peer listener (is a client URL or another server's port given as a peer URL?)"
        );
    }
    Ok(())
}

/// Answers a hello.
///
/// # Errors
/// The connection failed.
pub async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, answer: &Answer) -> anyhow::Result<()> {
    let mut out = BytesMut::with_capacity(ANSWER_BYTES);
    out.put_slice(MAGIC);
    out.put_u8(code(&VERDICTS, &answer.verdict));
    out.put_u64_le(answer.cluster.0);
    out.put_u64_le(answer.member.0);
    out.put_u16_le(answer.feature_level.0);
    stream.write_all(&out).await.context("answer hello")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_learn_of_each_other() {
        let (mut dialler, mut listener) = tokio::io::duplex(1024);
        let hello = Hello {
            purpose: Purpose::Snapshot,
            cluster: ClusterId(1),
            from: MemberId(2),
            to: MemberId(3),
            incarnation: Incarnation(4),
            feature_level: FeatureLevel(5),
            peer_urls: vec!["http://a:2380".to_owned(), "http://b:2380".to_owned()],
        };
        let expected = Answer {
            verdict: Verdict::Removed,
            cluster: ClusterId(1),
            member: MemberId(3),
            feature_level: FeatureLevel(1),
        };
        let listening = async {
            let heard = listen(&mut listener).await.unwrap();
            answer(&mut listener, &expected).await.unwrap();
            heard
        };
        let (heard, answered) = tokio::join!(listening, dial(&mut dialler, &hello));
        assert_eq!(heard, Some(hello));
        assert_eq!(answered.unwrap(), expected);
        assert!(expected.knows(FeatureLevel(1)).is_ok());
        let refused = expected.knows(FeatureLevel(2)).unwrap_err().to_string();
        assert!(refused.contains("level 1") && refused.contains("reached 2"), "{refused}");
    }

    #[tokio::test]
    async fn a_stranger_is_recognised() {
        let (mut stranger, mut listener) = tokio::io::duplex(1024);
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n").await.unwrap();
        let error = listen(&mut listener).await.unwrap_err();
        assert!(error.to_string().contains("not a Quorate peer"), "{error}");
    }
}
