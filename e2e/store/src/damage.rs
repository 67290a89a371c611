//! Damage to the files of a data directory, of a server that runs too, by what ARCHITECTURE.md says of their layout.
//!
//! ```text
//!   segment   4096 bytes of header, then frames at multiples of 8: "QWF1" │ length of the body u32 │ 24 bytes │ body
//!   sealed    magic 8 │ format u32 │ length u32 │ crc32c u32 over all else │ fields      (manifest, header of a segment)
//! ```

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Where frames begin.
const HEADER_SPAN: usize = 4096;

/// What stands in front of a frame's body.
const FRAME_HEADER: usize = 32;

/// Every file below a directory with its content: what must not change is compared by it.
///
/// # Errors
/// Something in it cannot be read.
pub fn content(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut contents = BTreeMap::new();
    for path in files(directory, |_| true)? {
        if path.is_dir() {
            contents.append(&mut content(&path)?);
        } else {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            contents.insert(path, bytes);
        }
    }
    Ok(contents)
}

/// The segments of the log, oldest first.
///
/// # Errors
/// The directory cannot be listed.
pub fn segments(data: &Path) -> Result<Vec<PathBuf>> {
    files(&data.join("wal"), |name| name.ends_with(".wal"))
}

/// The files of rows of the generation in use.
///
/// # Errors
/// A directory cannot be listed.
pub fn rows(data: &Path) -> Result<Vec<PathBuf>> {
    let generations = files(data, |name| name.starts_with("gen-"))?;
    let generation = generations.last().context("a data directory without a generation")?;
    files(generation, |name| name.contains("rows"))
}

fn files(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Where each frame of a segment begins and ends.
///
/// # Errors
/// The file cannot be read.
pub fn frames(segment: &Path) -> Result<Vec<(usize, usize)>> {
    let bytes = fs::read(segment).with_context(|| format!("read {}", segment.display()))?;
    let mut frames = Vec::new();
    let mut at = HEADER_SPAN;
    while bytes.get(at..at + 4) == Some(b"QWF1") {
        let length: [u8; 4] = bytes[at + 4..at + 8].try_into().expect("four bytes");
        let end = at + FRAME_HEADER + u32::from_le_bytes(length) as usize;
        frames.push((at, end));
        at = end.next_multiple_of(8);
    }
    Ok(frames)
}

/// Changes bytes of a file, and makes sure that it is another one. Only they are written: the rest may belong to a server that
/// runs.
///
/// # Errors
/// It cannot be read or written, or the change changed nothing.
pub fn alter(path: &Path, change: impl FnOnce(&mut [u8])) -> Result<()> {
    let before = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let mut after = before.clone();
    change(&mut after);
    let differ = |(one, other): (&u8, &u8)| one != other;
    let Some(first) = before.iter().zip(&after).position(differ) else {
        bail!("{} is as it was: no damage was done", path.display());
    };
    let last = before.iter().zip(&after).rposition(differ).unwrap_or(first);
    let file = OpenOptions::new().write(true).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let written = file.write_all_at(&after[first..=last], first as u64);
    written.with_context(|| format!("write {}", path.display()))
}

/// Cuts the log's last frame off in its middle, as a crash during the write does: what is behind reads as zeros.
///
/// # Errors
/// There is no frame, or the file cannot be changed.
pub fn tear_last_frame(data: &Path) -> Result<()> {
    let segments = segments(data)?;
    let segment = segments.last().context("a log without segments")?;
    let (start, end) = *frames(segment)?.last().context("a segment without frames")?;
    alter(segment, |bytes| bytes[start + (end - start) / 2..end].fill(0))
}

/// Flips one bit in the body of a frame from the middle of the log.
///
/// # Errors
/// There are too few frames, or the file cannot be changed.
pub fn flip_bit_of_log(data: &Path) -> Result<()> {
    let segments = segments(data)?;
    let segment = segments.first().context("a log without segments")?;
    let frames = frames(segment)?;
    ensure!(frames.len() > 10, "{} frames have no middle", frames.len());
    let (start, end) = frames[frames.len() / 2];
    let at = start + FRAME_HEADER + (end - start - FRAME_HEADER) / 2;
    alter(segment, |bytes| bytes[at] ^= 0x10)
}

/// Gives a sealed file a format that nobody knows yet, checksum and all.
///
/// # Errors
/// The file cannot be changed.
pub fn raise_format(path: &Path, checksum: impl Fn(&[u8]) -> u32) -> Result<()> {
    alter(path, |bytes| {
        bytes[8..12].copy_from_slice(&1000u32.to_le_bytes());
        let length: [u8; 4] = bytes[12..16].try_into().expect("four bytes");
        let fields = 20..20 + u32::from_le_bytes(length) as usize;
        let covered = [&bytes[..16], &bytes[fields]].concat();
        bytes[16..20].copy_from_slice(&checksum(&covered).to_le_bytes());
    })
}
