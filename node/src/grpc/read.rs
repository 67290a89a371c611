//! Reading keys on the caller's own task: where, with history held meanwhile, and what a failure means.

use quorate_machine::{RangeError, ReadFault, ReadPoint, Rejected};
use quorate_storage::rows::{Pin, PinRefused, RowReader};
use tonic::{Code, Status};

use super::{Api, status::EtcdError};
use crate::{clock, handle::Published};

/// A reader at a revision, and the pin that keeps compaction from its rows (design §3, the floor registry).
pub(super) struct PinnedReader {
    api: Api,
    pin: Pin,
    /// Reads.
    pub(super) rows: RowReader,
    /// The store's revision, and what of history is gone.
    pub(super) point: ReadPoint,
}

impl Api {
    /// Waits until everything that was committed when the call began is applied here, unless the caller is content
    /// with less.
    pub(super) async fn barrier(&self, serializable: bool) -> Result<(), Status> {
        if serializable {
            return Ok(());
        }
        self.handle().linearizable().await.map_err(|error| EtcdError::from(error).into())
    }

    /// A reader at a revision (≤ 0 = now).
    pub(super) fn read_at(&self, revision: i64) -> Result<PinnedReader, Status> {
        loop {
            let published = self.handle().published();
            let at = published.point.resolve(revision).map_err(EtcdError::from)?.main;
            match self.pin(&published, at)? {
                Some(reader) => return Ok(reader),
                // Compaction overtook the look at the point. A named revision is gone; now is another now.
                None if revision > 0 => return Err(EtcdError::Compacted.into()),
                None => {}
            }
        }
    }

    /// A reader of all history that there is now.
    pub(super) fn read_history(&self) -> Result<PinnedReader, Status> {
        loop {
            let published = self.handle().published();
            if let Some(reader) = self.pin(&published, published.point.compacted.max(0))? {
                return Ok(reader);
            }
        }
    }

    /// None if compaction has passed the revision already.
    fn pin(&self, published: &Published, revision: i64) -> Result<Option<PinnedReader>, Status> {
        // Of one moment with the point: after an installed snapshot other rows are in force.
        let (point, rows) = (published.point, published.rows.clone());
        match rows.pin(revision, clock::now_ms()) {
            Ok(pin) => Ok(Some(PinnedReader { api: self.clone(), pin, rows, point })),
            Err(PinRefused::Compacted(_)) => Ok(None),
            Err(PinRefused::TooMany) => Err(EtcdError::TooManyRequests.into()),
        }
    }
}

impl PinnedReader {
    /// What was read counts only if the pin held until now: a reader that is too old may have lost rows to compaction.
    ///
    /// # Errors
    /// etcd's for a refused or outdated read. A failed read of the disk stops the member (INV-S3).
    pub(super) fn vouch<T>(&self, read: Result<T, RangeError>) -> Result<T, Status> {
        match read {
            Err(RangeError::Rejected(rejected)) => Err(EtcdError::from(rejected).into()),
            _ if !self.pin.is_held() => Err(EtcdError::from(Rejected::Compacted).into()),
            Ok(value) => Ok(value),
            Err(RangeError::Fault(fault)) => Err(self.fault(fault)),
        }
    }

    fn fault(&self, fault: ReadFault) -> Status {
        let status = Status::new(Code::DataLoss, format!("etcdserver: {fault}"));
        self.api.handle().fault(fault);
        status
    }
}
