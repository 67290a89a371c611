//! A disk in memory that fails, crashes, and loses or tears what was not synced: for tests and the simulator.
//!
//! Each file has what readers see and what a crash leaves. A write reaches the second at [`DiskFile::sync`]; until then
//! a crash keeps or loses each of its sectors by itself. Names are treated the same way: until [`Disk::sync_dir`] a
//! crash keeps some of the changes of a directory, from the first on without gaps, as journals do. A failed sync
//! forgets what it should have made durable while readers still see it, as Linux does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock, SECTOR_BYTES};

/// The disk. Clones share it, as processes share a file system.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// What happens at a chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops there: the operation may have happened in part, and every later one fails until
    /// [`MemDisk::crash`].
    Crash,
    /// The operation fails as a broken disk or a full one does; later ones succeed.
    Error,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes of names that no directory sync has covered, oldest first.
    renaming: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    next_inode: u64,
    /// Counts crashes; a file opened before the last one is dead.
    life: u64,
    operations: u64,
    fault: Option<(u64, Fault)>,
    faults_taken: u64,
    halted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

enum NameChange {
    Set(PathBuf, Node),
    Remove(PathBuf),
    Move(PathBuf, PathBuf),
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Write>,
}

enum Write {
    At(usize, Vec<u8>),
    Length(usize),
}

struct MemFile {
    disk: MemDisk,
    inode: u64,
    life: u64,
}

struct MemLock {
    disk: MemDisk,
    path: PathBuf,
    life: u64,
}

impl MemDisk {
    /// A disk with nothing but the root directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Operations so far that change something or make it durable: what [`MemDisk::fail_at`] counts.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Lets the operation with this number fail; the next one has the number [`MemDisk::operations`].
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.0.lock().fault = Some((operation, fault));
    }

    /// How many faults have taken effect.
    #[must_use]
    pub fn faults_taken(&self) -> u64 {
        self.0.lock().faults_taken
    }

    /// The machine loses power and starts again: what was not synced is lost, kept or torn as the seed says, open
    /// files are dead and locks are free.
    pub fn crash(&self, seed: u64) {
        let mut state = self.0.lock();
        let mut dice = Dice(seed.wrapping_mul(2).wrapping_add(1));
        for inode in state.files.values_mut() {
            for write in std::mem::take(&mut inode.unsynced) {
                inode.survive(&write, &mut dice);
            }
            inode.seen.clone_from(&inode.durable);
        }
        let changes = std::mem::take(&mut state.renaming);
        let mut cut_off = BTreeSet::new();
        for change in changes {
            let directory = change.directory().to_path_buf();
            if cut_off.contains(&directory) || dice.roll(3) == 0 {
                cut_off.insert(directory);
            } else {
                change.apply(&mut state.durable_names);
            }
        }
        let durable = std::mem::take(&mut state.durable_names);
        let mut names = BTreeMap::new();
        for (name, node) in durable {
            // Parents come first; what is in a lost directory is lost with it.
            let parent = name.parent().unwrap_or(Path::new("/"));
            if parent == Path::new("/") || names.contains_key(parent) {
                names.insert(name, node);
            }
        }
        state.durable_names.clone_from(&names);
        let kept: BTreeSet<u64> = names.values().filter_map(|node| node.inode()).collect();
        state.files.retain(|inode, _| kept.contains(inode));
        state.names = names;
        state.restart();
    }

    /// The process dies and starts again while the machine stays up: everything seen is still seen, synced or not.
    pub fn kill(&self) {
        self.0.lock().restart();
    }

    /// What readers see of a file; `None` when there is none. For tests that damage files, with
    /// [`MemDisk::overwrite`].
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let inode = state.names.get(path)?.inode()?;
        Some(state.files[&inode].seen.clone())
    }

    /// Replaces what readers see of a file and what a crash leaves of it, as damage does.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.0.lock();
        let node = state.names.get(path).copied();
        let inode = match node.and_then(Node::inode) {
            Some(inode) => inode,
            None => {
                let inode = state.new_inode();
                state.names.insert(path.into(), Node::File(inode));
                state.durable_names.insert(path.into(), Node::File(inode));
                inode
            }
        };
        let (seen, durable) = (bytes.to_vec(), bytes.to_vec());
        state.files.insert(inode, Inode { seen, durable, unsynced: Vec::new() });
    }

    /// An independent disk with what readers see now, all of it durable.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.0.lock();
        let files = state.files.iter().map(|(number, inode)| {
            let (seen, durable) = (inode.seen.clone(), inode.seen.clone());
            (*number, Inode { seen, durable, unsynced: Vec::new() })
        });
        Self(Arc::new(Mutex::new(State {
            files: files.collect(),
            names: state.names.clone(),
            durable_names: state.names.clone(),
            next_inode: state.next_inode,
            ..State::default()
        })))
    }
}

impl State {
    fn restart(&mut self) {
        self.life += 1;
        self.halted = false;
        self.fault = None;
        self.locks.clear();
    }

    fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode
    }

    /// Counts an operation; whether it is to fail.
    fn step(&mut self) -> io::Result<()> {
        if self.halted {
            return Err(io::Error::other("the machine has crashed"));
        }
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == number => {
                self.fault = None;
                self.faults_taken += 1;
                self.halted = fault == Fault::Crash;
                Err(io::Error::other("injected fault"))
            }
            _ => Ok(()),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let root = parent == Path::new("/") || parent.as_os_str().is_empty();
        if root || self.names.get(parent) == Some(&Node::Dir) {
            Ok(())
        } else {
            Err(missing(parent))
        }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.renaming.push(change);
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl Node {
    fn inode(self) -> Option<u64> {
        match self {
            Self::Dir => None,
            Self::File(inode) => Some(inode),
        }
    }
}

impl NameChange {
    fn directory(&self) -> &Path {
        let (Self::Set(path, _) | Self::Remove(path) | Self::Move(path, _)) = self;
        path.parent().unwrap_or(Path::new("/"))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Set(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
            Self::Move(from, to) => {
                let moved: Vec<_> =
                    names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                for name in moved {
                    let node = names.remove(&name).expect("it was listed");
                    let rest = name.strip_prefix(from).expect("it starts with it");
                    let target =
                        if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    names.insert(target, node);
                }
            }
        }
    }
}

impl Inode {
    fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
        if bytes.len() < offset + new.len() {
            bytes.resize(offset + new.len(), 0);
        }
        bytes[offset..offset + new.len()].copy_from_slice(new);
    }

    fn make_durable(&mut self, write: &Write) {
        match write {
            Write::At(offset, bytes) => Self::put(&mut self.durable, *offset, bytes),
            Write::Length(length) => self.durable.resize(*length, 0),
        }
    }

    /// What a crash leaves of a write that was not synced.
    fn survive(&mut self, write: &Write, dice: &mut Dice) {
        let fate = dice.roll(4);
        match write {
            Write::Length(_) if fate < 2 => {}
            Write::At(offset, bytes) if fate > 1 => {
                // Torn: each sector on its own, by where it lies in the file.
                let mut at = 0;
                while at < bytes.len() {
                    let sector_end = (offset + at + 1).next_multiple_of(SECTOR_BYTES) - offset;
                    let end = sector_end.min(bytes.len());
                    if dice.roll(2) == 0 {
                        Self::put(&mut self.durable, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
            Write::At(..) if fate == 0 => {}
            Write::At(..) | Write::Length(_) => self.make_durable(write),
        }
    }
}

/// A generator of its own (SplitMix64), since this crate has no randomness and needs none elsewhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

impl Disk for MemDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.directory(path)?;
        if state.names.get(path) != Some(&Node::Dir) {
            state.change(NameChange::Set(path.into(), Node::Dir));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        if path != Path::new("/") && state.names.get(path) != Some(&Node::Dir) {
            return Err(missing(path));
        }
        let inside = state.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside
            .filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        state.directory(path)?;
        let existing = state.names.get(path).copied().and_then(Node::inode);
        let inode = if let Some(inode) = existing {
            let file = state.files.get_mut(&inode).expect("every name has its file");
            file.seen.clear();
            file.unsynced.push(Write::Length(0));
            inode
        } else {
            let inode = state.new_inode();
            state.files.insert(inode, Inode::default());
            state.change(NameChange::Set(path.into(), Node::File(inode)));
            inode
        };
        Ok(Arc::new(MemFile { disk: self.clone(), inode, life: state.life }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        if state.halted {
            return Err(io::Error::other("the machine has crashed"));
        }
        let inode =
            state.names.get(path).copied().and_then(Node::inode).ok_or_else(|| missing(path))?;
        Ok(Arc::new(MemFile { disk: self.clone(), inode, life: state.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if !state.names.contains_key(from) {
            return Err(missing(from));
        }
        state.change(NameChange::Move(from.into(), to.into()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if !state.names.contains_key(path) {
            return Err(missing(path));
        }
        state.change(NameChange::Remove(path.into()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if state.names.contains_key(path) {
            state.change(NameChange::Remove(path.into()));
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        // A directory that had been removed and was made again is another one: the removal must not take the new
        // one's content along when it becomes durable later.
        let covers = |change: &NameChange| {
            change.directory() == path
                || matches!(change, NameChange::Remove(removed) if path.starts_with(removed))
        };
        let (covered, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.renaming).into_iter().partition(covers);
        state.renaming = rest;
        for change in covered {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.0.lock();
        if !state.locks.insert(path.into()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemLock { disk: self.clone(), path: path.into(), life: state.life }))
    }
}

impl DiskLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

impl MemFile {
    fn with<T>(&self, change: bool, act: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.life != self.life {
            return Err(io::Error::other("the file was opened before the crash"));
        }
        let outcome = if change { state.step() } else { Ok(()) };
        let failed_whole = outcome.is_err() && !state.halted;
        if failed_whole {
            return Err(outcome.expect_err("it failed"));
        }
        // A write during which the machine stops may still have happened in part.
        let inode = state.files.get_mut(&self.inode);
        let done = inode.map(act).ok_or_else(|| io::Error::other("the file is gone"))?;
        outcome.map(|()| done)
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(false, |inode| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.seen.len());
            let length = buffer.len().min(inode.seen.len() - from);
            buffer[..length].copy_from_slice(&inode.seen[from..from + length]);
            length
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(true, |inode| {
            let offset = usize::try_from(offset).expect("files in memory are small");
            Inode::put(&mut inode.seen, offset, bytes);
            inode.unsynced.push(Write::At(offset, bytes.to_vec()));
        })
    }

    fn sync(&self) -> io::Result<()> {
        let outcome = self.with(true, |_| ());
        let mut state = self.disk.0.lock();
        let (life, halted) = (state.life, state.halted);
        let Some(inode) = state.files.get_mut(&self.inode) else { return outcome };
        if life != self.life || halted {
            return outcome;
        }
        let writes = std::mem::take(&mut inode.unsynced);
        if outcome.is_ok() {
            for write in writes {
                inode.make_durable(&write);
            }
        }
        outcome
    }

    fn len(&self) -> io::Result<u64> {
        self.with(false, |inode| inode.seen.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(true, |inode| {
            let length = usize::try_from(length).expect("files in memory are small");
            inode.seen.resize(length, 0);
            inode.unsynced.push(Write::Length(length));
        })
    }
}
