//! The mark of a member that ended because its data are damaged: a file beside the manifest, which stands until all was found whole.
//!
//! Rows are checked when they are read, so a start alone proves nothing of those that it does not read. Without the mark a member
//! with a damaged old row would serve after every restart until somebody reads that row again. That the file is there is what
//! counts; what it says is for people.

use std::io;
use std::path::Path;

use crate::directory::{DirectoryError, disk_error};
use crate::disk::Disk;
use crate::limits::CORRUPT_MARK_BYTES_MAX;
use crate::manifest::MANIFEST_NAME;

/// The mark's name in the data directory.
pub const CORRUPT_NAME: &str = "CORRUPT";

/// Leaves the mark, durably. One that is there stays as it is: it tells what was found first. Whether there is a mark now: a
/// directory without a manifest gets none, for it is no member's, or damaged in a way that every start finds out.
///
/// # Errors
/// The disk fails. The mark may be there nevertheless; nothing else was touched.
pub fn leave(disk: &dyn Disk, data: &Path, words: &str) -> Result<bool, DirectoryError> {
    let names = disk.list(data).map_err(disk_error("list", data))?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if !has(MANIFEST_NAME) {
        return Ok(false);
    }
    let path = data.join(CORRUPT_NAME);
    let mut written = Ok(());
    if !has(CORRUPT_NAME) {
        let file = disk.create(&path).map_err(disk_error("create", &path))?;
        written = file.write_at(0, words.as_bytes()).and_then(|()| file.sync());
    }
    // Also for a mark whose words found no room.
    disk.sync_dir(data).map_err(disk_error("sync", data))?;
    written.map_err(disk_error("write", &path))?;
    Ok(true)
}

/// What the mark says, if there is one.
///
/// # Errors
/// The disk fails.
pub fn words(disk: &dyn Disk, data: &Path) -> Result<Option<String>, DirectoryError> {
    let path = data.join(CORRUPT_NAME);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk_error("open", &path)(error)),
    };
    let mut bytes = vec![0; CORRUPT_MARK_BYTES_MAX];
    let length = file.read_at(0, &mut bytes).map_err(disk_error("read", &path))?;
    Ok(Some(String::from_utf8_lossy(&bytes[..length]).into_owned()))
}

/// Takes the mark away, durably: everything was found whole.
///
/// # Errors
/// The disk fails. The mark may still be there.
pub fn clear(disk: &dyn Disk, data: &Path) -> Result<(), DirectoryError> {
    let path = data.join(CORRUPT_NAME);
    disk.remove_file(&path).map_err(disk_error("remove", &path))?;
    disk.sync_dir(data).map_err(disk_error("sync", data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::{Fault, MemDisk};

    const DATA: &str = "/data";

    /// A directory with a manifest in it.
    fn directory() -> MemDisk {
        let disk = MemDisk::new();
        let data = Path::new(DATA);
        disk.create_dir(data).unwrap();
        disk.create(&data.join(MANIFEST_NAME)).unwrap();
        disk.sync_dir(data).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk
    }

    fn found(disk: &MemDisk) -> Option<String> {
        words(disk, Path::new(DATA)).unwrap()
    }

    #[test]
    fn a_mark_outlives_a_power_cut_until_it_is_cleared_and_the_first_words_stay() {
        for seed in 0..20 {
            let disk = directory();
            assert_eq!(found(&disk), None);
            assert!(leave(&disk, Path::new(DATA), "the first").unwrap());
            disk.crash(seed);
            assert_eq!(found(&disk).as_deref(), Some("the first"));
            assert!(leave(&disk, Path::new(DATA), "the second").unwrap());
            assert_eq!(found(&disk).as_deref(), Some("the first"));
            clear(&disk, Path::new(DATA)).unwrap();
            disk.crash(seed);
            assert_eq!(found(&disk), None);
        }
    }

    #[test]
    fn a_disk_that_fails_is_told_of_and_the_name_alone_is_a_mark() {
        let mut failures = 0;
        for operation in 0.. {
            let disk = directory();
            disk.fail_at(disk.operations() + operation, Fault::Error);
            let left = leave(&disk, Path::new(DATA), "words");
            if disk.faults_taken() == 0 {
                assert!(left.unwrap());
                break;
            }
            assert!(left.unwrap_err().to_string().contains(DATA));
            failures += 1;
            let there = disk.list(Path::new(DATA)).unwrap().iter().any(|it| it == CORRUPT_NAME);
            assert_eq!(found(&disk).is_some(), there);
            assert_eq!(there, operation > 0, "what failed was operation {operation}");
        }
        assert_eq!(failures, 4, "create, write, sync, and the directory's sync");
    }

    #[test]
    fn a_directory_that_is_no_members_is_left_alone() {
        let disk = MemDisk::new();
        disk.create_dir(Path::new(DATA)).unwrap();
        disk.create(&Path::new(DATA).join("somebody's")).unwrap();
        assert!(!leave(&disk, Path::new(DATA), "words").unwrap());
        assert_eq!(disk.list(Path::new(DATA)).unwrap(), ["somebody's"]);
    }
}
