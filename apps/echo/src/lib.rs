//! The smallest service: replies with what it was sent. For measuring, and for a first look.
#![forbid(unsafe_code)]

use evershard::{Context, Digest, Digester, Service, SnapshotError, SnapshotReader, SnapshotWriter};

/// Replies with the command, and counts.
#[derive(Debug, Default)]
pub struct Echo {
    commands: u64,
    /// Digest over all commands so far, each folded into the one before.
    history: u64,
}

impl Service for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn apply(&mut self, context: &mut Context<'_>, command: &[u8]) {
        self.commands += 1;
        self.history = self.history.rotate_left(5) ^ Digest::of(command).0;
        context.reply(command).expect("a command is never larger than a reply may be");
    }

    /// How many commands there were: 8 bytes, little-endian.
    fn query(&self, _question: &[u8], answer: &mut Vec<u8>) -> bool {
        answer.extend_from_slice(&self.commands.to_le_bytes());
        true
    }

    fn digest(&self) -> Digest {
        let mut digester = Digester::new();
        digester.add_u64(self.commands);
        digester.add_u64(self.history);
        digester.finish()
    }

    fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
        out.write(&self.commands.to_le_bytes())?;
        out.write(&self.history.to_le_bytes())
    }

    fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        let mut field = [0; 8];
        source.read_exact(&mut field)?;
        self.commands = u64::from_le_bytes(field);
        source.read_exact(&mut field)?;
        self.history = u64::from_le_bytes(field);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evershard::harness::Harness;

    #[test]
    fn replies_with_the_command_and_is_deterministic() {
        let report = Harness::new(Echo::default).command(1, b"one").command(2, b"").run();
        assert_eq!(report.replies, vec![b"one".to_vec(), Vec::new()]);
    }
}
