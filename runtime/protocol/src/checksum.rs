//! CRC-32C, the checksum of records, frames and disk blocks.

use crc_fast::CrcAlgorithm;

/// CRC-32C (Castagnoli, as in iSCSI, RFC 3720) of one byte range.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    low_32(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// CRC-32C over several ranges, as if they stood one behind the other.
#[must_use]
pub fn crc32c_of(parts: &[&[u8]]) -> u32 {
    if let [only] = parts {
        return crc32c(only);
    }
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    low_32(digest.finalize())
}

fn low_32(wide: u64) -> u32 {
    u32::try_from(wide).expect("a 32-bit CRC fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_check_value_and_is_additive() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_of(&[b"1234", b"", b"56789"]), 0xE306_9283);
    }
}
