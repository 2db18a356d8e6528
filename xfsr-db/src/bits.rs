//! Runs of bits in bytes, the highest bit of each byte first: how XFS packs numbers.

/// A number of up to 64 bits; none where the bytes end before it.
pub(crate) fn get_bits(bytes: &[u8], bit: usize, bits: usize) -> Option<u64> {
    let mut v = 0;
    for i in bit..bit.checked_add(bits)? {
        v = v << 1 | u64::from(bytes.get(i / 8)? >> (7 - i % 8) & 1);
    }
    Some(v)
}

/// Writes one bit; nothing where there is none.
pub(crate) fn set_bit(bytes: &mut [u8], at: usize, on: bool) {
    if let Some(b) = bytes.get_mut(at / 8) {
        let mask = 0x80 >> (at % 8);
        *b = if on { *b | mask } else { *b & !mask };
    }
}

/// Writes the lower `bits` bits of a number.
pub(crate) fn set_bits(bytes: &mut [u8], bit: usize, bits: usize, value: u64) {
    for i in 0..bits {
        let shift = bits - 1 - i;
        set_bit(bytes, bit + i, shift < 64 && value >> shift & 1 == 1);
    }
}

#[cfg(test)]
mod tests {
    use super::{get_bits, set_bits};

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_changes() {
        for (bit, bits) in [(0, 1), (1, 54), (55, 52), (107, 21), (3, 64), (64, 64)] {
            for start in [0, 0xff] {
                let mut b = [start; 16];
                let value = 0x1234_5678_9abc_def0 & u64::MAX >> (64 - bits);
                set_bits(&mut b, bit, bits, value);
                assert_eq!(get_bits(&b, bit, bits), Some(value));
                for other in (0..128).filter(|i| !(bit..bit + bits).contains(i)) {
                    assert_eq!(get_bits(&b, other, 1), Some(u64::from(start & 1)));
                }
            }
        }
        assert_eq!(get_bits(&[0; 2], 10, 7), None);
    }
}
