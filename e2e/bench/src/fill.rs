//! Fills a store with every key that the load generator may write, in random order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quorate_proto::etcdserverpb::PutRequest;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client;
use crate::limits::{FILL_IN_FLIGHT, FILL_MAX, FILL_TXN_PUTS, KEY_BYTES, VALUE_BYTES};

/// The key that ranges read: one that can be typed on a command line, which those of the tool cannot.
pub(crate) const RANGE_KEY: &str =
    "range-key-000000000000000000000000000000000000000000000000000000";

/// Fills the store through all members and returns how long it took. The same round gives both servers the same keys in
/// the same order.
pub(crate) async fn fill(ports: &[u16], keys: usize, seed: u64) -> Result<Duration> {
    let started = Instant::now();
    let mut numbers: Vec<u64> = (0..keys as u64).collect();
    numbers.shuffle(&mut SmallRng::seed_from_u64(seed));
    let numbers = Arc::new(numbers);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..FILL_IN_FLIGHT {
        let channel = client::channel(ports[worker % ports.len()])?;
        let (numbers, next) = (numbers.clone(), next.clone());
        let mut random = SmallRng::seed_from_u64(seed + 1 + worker as u64);
        workers.spawn(async move {
            loop {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                let Some(chunk) = numbers.chunks(FILL_TXN_PUTS).nth(chunk) else {
                    return anyhow::Ok(());
                };
                let puts = chunk.iter().map(|number| put(key(*number), &mut random)).collect();
                client::put_all(&channel, puts).await?;
            }
        });
    }
    let all = async {
        while let Some(worker) = workers.join_next().await {
            worker.context("a worker of the fill ended early")??;
        }
        let range_key = put(RANGE_KEY.into(), &mut SmallRng::seed_from_u64(seed));
        client::put_all(&client::channel(ports[0])?, vec![range_key]).await
    };
    timeout(FILL_MAX, all).await.context("the fill takes too long")??;
    Ok(started.elapsed())
}

fn put(key: Vec<u8>, random: &mut SmallRng) -> PutRequest {
    let mut value = vec![0; VALUE_BYTES];
    random.fill_bytes(&mut value);
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// Key `number` of the tool: Go's `binary.PutVarint` (zig-zag, then seven bits a byte, least first) at the start of a
/// zeroed buffer.
fn key(number: u64) -> Vec<u8> {
    let mut key = vec![0; KEY_BYTES];
    let mut rest = number << 1;
    for byte in &mut key {
        *byte = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            break;
        }
        *byte |= 0x80;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_tool() {
        assert_eq!(RANGE_KEY.len(), KEY_BYTES);
        assert_eq!(key(0), vec![0; 64]);
        assert_eq!(key(1)[..2], [2, 0]);
        assert_eq!(key(63)[..2], [126, 0]);
        // 64 is the first that needs a second byte: zig-zag 128.
        assert_eq!(key(64)[..3], [0x80, 1, 0]);
        assert_eq!(key(999_999)[..4], [0xfe, 0x88, 0x7a, 0]);
        assert!((0..70_000).all(|number| key(number).len() == KEY_BYTES));
    }
}
