//! What the kernel says that was used: CPU and memory of a process, CPU by thread, bytes that went to a disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What processes have used since they started, summed over them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU in microseconds, in user space and kernel, of all threads, ended ones too.
    pub(crate) cpu: f64,
    /// CPU in microseconds of the threads that live, by name.
    pub(crate) threads: BTreeMap<String, f64>,
}

/// What processes hold now: the greatest of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Memory {
    /// Bytes of its own: heap and stacks (RssAnon).
    pub(crate) anonymous: f64,
    /// Bytes in all: with mapped files (VmRSS).
    pub(crate) resident: f64,
}

impl Usage {
    /// The sum over processes.
    pub(crate) fn of(pids: &[u32]) -> Result<Usage> {
        let mut sum = Usage::default();
        for pid in pids {
            let stat = read(*pid, "stat")?;
            sum.cpu += cpu(&stat).with_context(|| format!("read the CPU of process {pid}"))?;
            add_threads(*pid, &mut sum.threads)?;
        }
        Ok(sum)
    }

    /// What was used since an earlier look. A thread that ended in between counts as nothing.
    pub(crate) fn since(&self, earlier: &Usage) -> Usage {
        let spent = |(name, cpu): (&String, &f64)| {
            let before = earlier.threads.get(name).copied().unwrap_or(0.0);
            (name.clone(), (cpu - before).max(0.0))
        };
        Usage { cpu: self.cpu - earlier.cpu, threads: self.threads.iter().map(spent).collect() }
    }
}

impl Memory {
    /// The greatest of processes.
    pub(crate) fn of(pids: &[u32]) -> Result<Memory> {
        let mut most = Memory::default();
        for pid in pids {
            let status = read(*pid, "status")?;
            let bytes = |name| {
                let kib: Result<f64> = field(&status, name);
                kib.map(|kib| kib * 1024.0).with_context(|| format!("memory of process {pid}"))
            };
            most.raise(Memory { anonymous: bytes("RssAnon:")?, resident: bytes("VmRSS:")? });
        }
        Ok(most)
    }

    /// Keeps the greater of each.
    pub(crate) fn raise(&mut self, other: Memory) {
        self.anonymous = self.anonymous.max(other.anonymous);
        self.resident = self.resident.max(other.resident);
    }
}

/// Bytes of a sector in `/proc/diskstats`, whatever the device calls one.
const SECTOR: f64 = 512.0;

/// Bytes that ever went to the disk under a path, by all who use it, after everything that waits to be written has been.
/// None where the path is on no disk of its own (overlay, tmpfs).
///
/// Not `write_bytes` of `/proc/PID/io`: that counts a page cache folio as a whole each time a part of it is dirtied, and
/// a folio of a file that was written in large pieces has up to 2 MiB. A log that syncs 1500 bytes at a time into a
/// zero-filled file was seen to "write" 1 MiB each time, of which 8 KiB went to the disk.
pub(crate) fn disk_written(path: &Path) -> Result<Option<f64>> {
    rustix::fs::sync();
    let device = rustix::fs::stat(path).with_context(|| format!("stat {path:?}"))?.st_dev;
    let diskstats = fs::read_to_string("/proc/diskstats").context("read /proc/diskstats")?;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(sectors_written(&diskstats, major, minor).map(|sectors| sectors * SECTOR))
}

/// Field 10 of the device's line (Documentation/admin-guide/iostats.rst of Linux).
fn sectors_written(diskstats: &str, major: u32, minor: u32) -> Option<f64> {
    let is_device = |fields: &Vec<&str>| {
        fields[..2.min(fields.len())] == [major.to_string().as_str(), minor.to_string().as_str()]
    };
    let mut lines = diskstats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(is_device)?.get(9)?.parse().ok()
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("read {path}: has the server ended?"))
}

/// utime + stime (fields 14 and 15, proc(5)) in microseconds. The name, field 2, may hold spaces and brackets.
fn cpu(stat: &str) -> Result<f64> {
    let behind_name = stat.rsplit_once(") ").context("no name in brackets")?.1;
    let mut fields = behind_name.split(' ').skip(11);
    let mut ticks = || -> Result<f64> { Ok(fields.next().context("too few fields")?.parse()?) };
    let sum = ticks()? + ticks()?;
    Ok(sum * 1e6 / rustix::param::clock_ticks_per_second() as f64)
}

/// The number behind a name in a file of lines `name: number unit`.
fn field(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no line {name}"))?;
    let number = line.split_whitespace().next().with_context(|| format!("{name} without value"))?;
    Ok(number.parse()?)
}

/// Nanoseconds on a CPU, the first field of a thread's `schedstat`, added by the thread's name. Members of a pool
/// (`name-3`) are one room. A thread that ends while we read is left out.
fn add_threads(pid: u32, sum: &mut BTreeMap<String, f64>) -> Result<()> {
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
        let task = task?.path();
        let Some((name, cpu)) = thread(&task) else { continue };
        *sum.entry(name).or_default() += cpu;
    }
    Ok(())
}

fn thread(task: &Path) -> Option<(String, f64)> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    let nanoseconds: f64 = schedstat.split(' ').next()?.parse().ok()?;
    let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    Some((name.to_owned(), nanoseconds / 1e3))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu(stat).unwrap(), 300.0 * 1e6 / ticks);
    }

    #[test]
    fn sectors_are_those_of_the_device_itself() {
        let diskstats =
            "   7       0 loop0 1 2 3 4 5 6 77 8\n 254       0 vda 1 2 3 4 5 6 4096 8\n";
        assert_eq!(sectors_written(diskstats, 254, 0), Some(4096.0));
        assert_eq!(sectors_written(diskstats, 254, 1), None);
    }

    #[test]
    fn what_is_written_and_not_yet_synced_counts() {
        let file = std::env::current_exe().unwrap().with_extension("written");
        let here = file.parent().unwrap();
        let Some(before) = disk_written(here).unwrap() else { return };
        fs::write(&file, vec![7_u8; 8 << 20]).unwrap();
        let after = disk_written(here).unwrap().unwrap();
        fs::remove_file(&file).unwrap();
        assert!(after - before >= f64::from(8 << 20), "{before} {after}");
    }

    #[test]
    fn work_of_this_process_shows_in_its_cpu_and_in_the_thread_that_did_it() {
        let me = [std::process::id()];
        let before = Usage::of(&me).unwrap();
        let worker = std::thread::Builder::new().name("digger-1".into());
        let (look_tx, look_rx) = std::sync::mpsc::channel();
        let (go_tx, go_rx) = std::sync::mpsc::channel::<()>();
        let dig = worker.spawn(move || {
            let end = Instant::now() + Duration::from_millis(200);
            let mut sum = 0_u64;
            while Instant::now() < end {
                sum = std::hint::black_box(sum.wrapping_mul(31) + 1);
            }
            look_tx.send(()).unwrap();
            go_rx.recv().ok();
        });
        look_rx.recv().unwrap();
        let used = Usage::of(&me).unwrap().since(&before);
        go_tx.send(()).unwrap();
        dig.unwrap().join().unwrap();
        // A busy host may give the thread little of its 200 ms, but never nothing.
        assert!(used.threads["digger"] > 1_000.0, "{used:?}");
        assert!(used.cpu > 0.0, "{used:?}");
    }

    #[test]
    fn memory_that_is_touched_is_counted() {
        let me = [std::process::id()];
        let before = Memory::of(&me).unwrap();
        let held = vec![1_u8; 64 << 20];
        let after = Memory::of(&me).unwrap();
        assert!(after.anonymous - before.anonymous > f64::from(48 << 20), "{before:?} {after:?}");
        assert!(after.resident >= after.anonymous);
        drop(held);
    }
}
