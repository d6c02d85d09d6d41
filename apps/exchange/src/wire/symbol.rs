//! The name of a traded instrument.

use std::fmt;
use std::str::FromStr;

use super::layout::SYMBOL_SIZE;

/// One to sixteen printable ASCII characters, none of them a space, comma or quote; so it goes into a CSV file as
/// it is. Sorted as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol([u8; SYMBOL_SIZE]);

/// Not a symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a symbol has 1 to {SYMBOL_SIZE} printable ASCII characters and no space, comma or quote")]
pub struct SymbolError;

impl Symbol {
    /// From its zero padded form on the wire.
    ///
    /// # Errors
    /// [`SymbolError`].
    pub fn from_wire(bytes: [u8; SYMBOL_SIZE]) -> Result<Self, SymbolError> {
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(SYMBOL_SIZE);
        let allowed = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'"' | b'\'');
        let padded = bytes[len..].iter().all(|byte| *byte == 0);
        if len > 0 && padded && bytes[..len].iter().all(allowed) { Ok(Self(bytes)) } else { Err(SymbolError) }
    }

    /// Zero padded.
    #[must_use]
    pub fn to_wire(self) -> [u8; SYMBOL_SIZE] {
        self.0
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(SYMBOL_SIZE);
        std::str::from_utf8(&self.0[..len]).expect("a symbol is ASCII")
    }
}

impl FromStr for Symbol {
    type Err = SymbolError;

    fn from_str(text: &str) -> Result<Self, SymbolError> {
        let mut bytes = [0; SYMBOL_SIZE];
        bytes.get_mut(..text.len()).ok_or(SymbolError)?.copy_from_slice(text.as_bytes());
        // A zero byte within the text would pass as padding.
        if text.contains('\0') { Err(SymbolError) } else { Self::from_wire(bytes) }
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
