//! Snapshots between members: the machine's small state and every row, in revision order, on a connection of its own.
//!
//! ```text
//!   head  │ announcement (a Raft message, Body::Snapshot) │ machine state
//!   rows  │ count u32 │ { main i64 │ sub i64 │ tombstone u8 │ key length u32 │ key │ pair length u32 │ pair } …     repeated
//!   end   │ rows in all u64
//!   ◄──── │ taken u8: 1 installed and durable, 0 not wanted
//! ```
//!
//! Nothing is held in memory but one frame, on either side: a follower that is far behind costs the leader a scan.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_consensus::{Body, Message, SnapshotMeta, codec};
use quorate_machine::{EncodedKeyValue, FeatureLevel, KeyValue, Revision, Row, RowView};
use quorate_storage::{
    rows::{Pin, RowReader},
    wal::Hold,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::{
    Identity, frame,
    frame::FrameReader,
    hello::{Hello, Purpose, Verdict},
    sender::{dial_any, refusal_text},
};

/// Bytes of rows in one frame.
const FRAME_ROWS_BYTES: usize = 1 << 20;

/// Frames between the scan and the socket.
const FRAMES_AHEAD: usize = 4;

/// A peer that takes nothing for so long, or does not say whether it has installed what it got, is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Kinds of frames.
const HEAD: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;

/// What is sent: the machine at one applied index.
pub struct Outgoing {
    /// "You are too far behind": what the receiver's consensus must hear first.
    pub announcement: Message,
    /// The machine's small state.
    pub state: Bytes,
    /// What the receiver must know to read it.
    pub feature_level: FeatureLevel,
    /// Reads rows, pinned at `revision` for as long as this lives.
    pub reader: RowReader,
    /// Keeps the rows.
    pub pin: Pin,
    /// The store's revision at the applied index.
    pub revision: i64,
    /// Keeps the log from the applied index on, so that the follower can go on from there; none when too much is held already.
    pub log: Option<Hold>,
}

/// Sends a snapshot; returns once the receiver has it durable.
///
/// # Errors
/// The receiver cannot be reached, refuses, or the connection or a read failed.
pub async fn send(
    mut outgoing: Outgoing,
    addresses: Vec<String>,
    identity: Arc<Identity>,
) -> anyhow::Result<()> {
    let hello = Hello::from(&identity, Purpose::Snapshot, outgoing.announcement.to);
    let held = outgoing.log.take();
    let (mut stream, answer) = dial_any(&addresses, &hello).await?;
    ensure!(answer.verdict == Verdict::Welcome, refusal_text(answer.verdict));
    answer.knows(outgoing.feature_level)?;
    let mut head = BytesMut::new();
    frame::put(&mut head, |out| put_head(out, &outgoing));
    write(&mut stream, &head).await?;
    let (frames, mut produced) = mpsc::channel(FRAMES_AHEAD);
    let scan = tokio::task::spawn_blocking(move || scan(&outgoing, &frames));
    while let Some(frame) = produced.recv().await {
        write(&mut stream, &frame).await?;
    }
    scan.await.context("scan rows")??;
    let taken = tokio::time::timeout(STALL_TIMEOUT, stream.read_u8())
        .await
        .context("wait for the installation")??;
    // Until now: what follows the snapshot is in the log still.
    drop(held);
    ensure!(taken == 1, "the follower no longer wants this snapshot");
    Ok(())
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    tokio::time::timeout(STALL_TIMEOUT, stream.write_all(bytes))
        .await
        .context("send the snapshot")??;
    Ok(())
}

fn put_head(out: &mut BytesMut, outgoing: &Outgoing) {
    out.put_u8(HEAD);
    let mut announcement = BytesMut::new();
    codec::encode_message(&outgoing.announcement, &mut announcement);
    put_bytes(out, &announcement);
    put_bytes(out, &outgoing.state);
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("frames are bounded"));
    out.put_slice(bytes);
}

/// Reads all rows and cuts them into frames; ends early when the connection is gone.
fn scan(outgoing: &Outgoing, frames: &mpsc::Sender<BytesMut>) -> anyhow::Result<()> {
    let mut batch = RowBatch::default();
    let mut total: u64 = 0;
    outgoing.reader.kept_rows(
        &outgoing.pin,
        Revision::end_of(outgoing.revision),
        &mut |row, _| {
            total += 1;
            batch.push(row);
            if batch.bytes.len() < FRAME_ROWS_BYTES {
                return ControlFlow::Continue(());
            }
            match frames.blocking_send(batch.take()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        },
    )?;
    // What was read after a pin was revoked may lack rows that compaction took.
    ensure!(outgoing.pin.is_held(), "the snapshot took so long that its rows were compacted");
    frames.blocking_send(batch.take()).context("the connection is gone")?;
    let mut end = BytesMut::new();
    frame::put(&mut end, |out| {
        out.put_u8(END);
        out.put_u64_le(total);
    });
    frames.blocking_send(end).context("the connection is gone")
}

/// Rows of one frame.
#[derive(Default)]
struct RowBatch {
    bytes: BytesMut,
    count: u32,
}

impl RowBatch {
    fn push(&mut self, row: &RowView<'_>) {
        self.count += 1;
        self.bytes.put_i64_le(row.revision.main);
        self.bytes.put_i64_le(row.revision.sub);
        self.bytes.put_u8(u8::from(row.tombstone));
        put_bytes(&mut self.bytes, row.key);
        put_bytes(&mut self.bytes, row.kv);
    }

    fn take(&mut self) -> BytesMut {
        let mut out = BytesMut::with_capacity(self.bytes.len() + 16);
        frame::put(&mut out, |out| {
            out.put_u8(ROWS);
            out.put_u32_le(self.count);
            out.put_slice(&self.bytes);
        });
        self.bytes.clear();
        self.count = 0;
        out
    }
}

/// What arrives first.
pub struct Head {
    /// For consensus: it decides whether the snapshot is wanted.
    pub announcement: Message,
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// The machine's small state.
    pub state: Bytes,
}

/// The receiving side of one snapshot.
pub struct Incoming {
    frames: FrameReader<TcpStream>,
    rows: u64,
}

impl Incoming {
    /// What a connection with [`Purpose::Snapshot`] brings after its handshake.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { frames: FrameReader::new(stream), rows: 0 }
    }

    /// Reads the head.
    ///
    /// # Errors
    /// The connection failed, or sent something else.
    pub async fn head(&mut self) -> anyhow::Result<Head> {
        let mut frame = self.frame().await?;
        ensure!(frame.try_get_u8()? == HEAD, "a snapshot began without its head");
        let announcement =
            codec::decode_message(take_bytes(&mut frame)?).context("decode the announcement")?;
        let Body::Snapshot { meta } = &announcement.body else {
            bail!("a snapshot was announced as something else")
        };
        let meta = meta.clone();
        Ok(Head { announcement, meta, state: take_bytes(&mut frame)? })
    }

    /// The next rows; none at the end, when as many came as were sent.
    ///
    /// # Errors
    /// The connection failed or was cut short.
    pub async fn rows(&mut self) -> anyhow::Result<Option<Vec<Row>>> {
        let mut frame = self.frame().await?;
        match frame.try_get_u8()? {
            ROWS => {
                let count = frame.try_get_u32_le()?;
                self.rows += u64::from(count);
                (0..count).map(|_| take_row(&mut frame)).collect::<anyhow::Result<_>>().map(Some)
            }
            END => {
                let sent = frame.try_get_u64_le()?;
                ensure!(sent == self.rows, "{sent} rows were sent and {} came", self.rows);
                Ok(None)
            }
            kind => bail!("a snapshot brought a frame of kind {kind}"),
        }
    }

    /// Tells the sender how it ended.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn answer(&mut self, installed: bool) -> anyhow::Result<()> {
        self.frames.stream_mut().write_u8(u8::from(installed)).await.context("answer the snapshot")
    }

    async fn frame(&mut self) -> anyhow::Result<Bytes> {
        tokio::time::timeout(STALL_TIMEOUT, self.frames.next())
            .await
            .context("wait for the snapshot")??
            .context("the snapshot ended in its middle")
    }
}

fn take_bytes(frame: &mut Bytes) -> anyhow::Result<Bytes> {
    let length = frame.try_get_u32_le()? as usize;
    ensure!(frame.len() >= length, "a snapshot's frame is cut short");
    Ok(frame.split_to(length))
}

fn take_row(frame: &mut Bytes) -> anyhow::Result<Row> {
    let revision = Revision { main: frame.try_get_i64_le()?, sub: frame.try_get_i64_le()? };
    let tombstone = frame.try_get_u8()? != 0;
    let key = take_bytes(frame)?;
    let kv = EncodedKeyValue(take_bytes(frame)?);
    let (created, version) = if tombstone {
        (0, 0)
    } else {
        let KeyValue { create_revision, version, .. } =
            kv.decode().context("decode a row's pair")?;
        (create_revision, version)
    };
    Ok(Row { revision, key, kv, created, version, tombstone })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went() {
        let put = KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: Bytes::from_static(b"v"),
            ..KeyValue::default()
        };
        let rows = [
            Row {
                revision: Revision { main: 3, sub: 0 },
                key: put.key.clone(),
                kv: put.encode(),
                created: 2,
                version: 2,
                tombstone: false,
            },
            Row {
                revision: Revision { main: 4, sub: 1 },
                key: put.key.clone(),
                kv: KeyValue::of_tombstone(put.key),
                created: 0,
                version: 0,
                tombstone: true,
            },
        ];
        let mut batch = RowBatch::default();
        for row in &rows {
            batch.push(&RowView {
                revision: row.revision,
                tombstone: row.tombstone,
                key: &row.key,
                kv: &row.kv.0,
            });
        }
        let mut frame = batch.bytes.freeze();
        for row in rows {
            assert_eq!(take_row(&mut frame).unwrap(), row);
        }
        assert!(take_row(&mut frame).is_err());
    }
}
