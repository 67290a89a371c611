//! Base-128 integers: the one variable-length encoding that leaves, rows and checkpoints share.

/// Bytes that a `u64` takes at most.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Appends `value`, least significant seven bits first, as protocol buffers do.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads the integer at `*at` and moves `*at` behind it. For bytes that this crate wrote and has checked (leaves in
/// memory, frames whose CRC passed): running off the end is a defect and panics by the slice's own bound check.
#[inline]
pub(crate) fn take(bytes: &[u8], at: &mut usize) -> u64 {
    let first = bytes[*at];
    *at += 1;
    if first < 0x80 {
        return u64::from(first);
    }
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Reads the integer at `*at` from bytes that nobody has checked; `None` when they end or run over ten bytes.
pub(crate) fn try_take(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for step in 0..VARINT_BYTES_MAX {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if step == VARINT_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * step);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back_as_it_went() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put(&mut out, value);
                let (mut a, mut b) = (0, 0);
                assert_eq!(take(&out, &mut a), value);
                assert_eq!(try_take(&out, &mut b), Some(value));
                assert_eq!((a, b), (out.len(), out.len()));
            }
        }
    }

    #[test]
    fn unchecked_bytes_that_end_early_or_overflow_are_refused() {
        assert_eq!(try_take(&[], &mut 0), None);
        assert_eq!(try_take(&[0x80, 0x80], &mut 0), None);
        assert_eq!(try_take(&[0xff; 11], &mut 0), None);
        let mut over = vec![0xff; 9];
        over.push(0x02);
        assert_eq!(try_take(&over, &mut 0), None);
    }
}
