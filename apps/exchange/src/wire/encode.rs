//! Writes messages.

use exchange_book::Side;
use zerocopy::{Immutable, IntoBytes};

use super::layout::{GroupHeader, Header, MalformedBlock, UnknownBlock};
use super::{DecodeError, SCHEMA, VERSION, template};

/// Bit 0 of the flags: there is more than the message holds.
pub const FLAG_MORE: u8 = 1;

/// Appends a header and a block to `out`.
pub fn message<T: IntoBytes + Immutable>(out: &mut Vec<u8>, template: u16, block: &T) {
    out.extend_from_slice(header::<T>(template).as_bytes());
    out.extend_from_slice(block.as_bytes());
}

/// The header of a message with a block of type `T`.
#[must_use]
pub fn header<T>(template: u16) -> Header {
    Header {
        block_length: u16::try_from(size_of::<T>()).expect("blocks are small").into(),
        template: template.into(),
        schema: SCHEMA.into(),
        version: VERSION.into(),
    }
}

/// Appends a repeating group to `out`. The caller keeps to the limit of its message.
///
/// # Panics
/// If there are more than 65,535 entries.
pub fn group<T: IntoBytes + Immutable>(out: &mut Vec<u8>, entries: impl Iterator<Item = T>) {
    let start = out.len();
    let block_length = u16::try_from(size_of::<T>()).expect("entries are small").into();
    out.extend_from_slice(GroupHeader { block_length, len: 0.into() }.as_bytes());
    let mut len = 0_usize;
    for entry in entries {
        out.extend_from_slice(entry.as_bytes());
        len += 1;
    }
    let len = u16::try_from(len).expect("the limits of all groups are below 65,536").into();
    out[start..start + size_of::<GroupHeader>()].copy_from_slice(GroupHeader { block_length, len }.as_bytes());
}

/// The reply to a command that could not be read.
pub fn failure(out: &mut Vec<u8>, error: DecodeError) {
    match error {
        DecodeError::Unknown { template, schema, version } => {
            let (template, schema, version) = (template.into(), schema.into(), version.into());
            message(out, template::UNKNOWN, &UnknownBlock { template, schema, version, reserved: [0; 2] });
        }
        DecodeError::Malformed { template, reason } => {
            let (template, reason) = (template.into(), reason as u8);
            message(out, template::MALFORMED, &MalformedBlock { template, reason, reserved: [0; 5] });
        }
    }
}

/// A side as on the wire.
#[must_use]
pub fn side(side: Side) -> u8 {
    match side {
        Side::Buy => b'B',
        Side::Sell => b'S',
    }
}
