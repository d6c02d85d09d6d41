//! Which segments make up the log: the chain that leads to the newest one.

use crate::block::BlockKind;
use crate::recovery::RecoveryError;
use crate::scan::Surveyed;
use crate::segment::SegmentNumber;
use crate::start::StartCause;

/// Indexes of the segments that make up the log, oldest first.
pub(crate) type Lineage = Vec<usize>;

/// Follows the start blocks back from the newest segment. If that leads to a segment which is there and whose start
/// cannot be read, the chain is taken up again below it: the walk will find the fault there. Empty if no start
/// can be read, or the oldest cannot.
pub(crate) fn lineage(segments: &[Surveyed]) -> Result<Lineage, RecoveryError> {
    let readable_below = |limit: usize| segments[..limit].iter().rposition(|segment| segment.start().is_some());
    let mut found = Lineage::new();
    let mut at = readable_below(segments.len());
    while let Some(index) = at {
        found.push(index);
        let start = segments[index].start().expect("only readable ones are visited").block.draft;
        if start.kind == BlockKind::SegmentStart(StartCause::Anew) || start.previous == SegmentNumber(0) {
            break;
        }
        at = match segments.binary_search_by_key(&start.previous, |segment| segment.number) {
            Ok(previous) if previous >= index => None,
            Ok(previous) if segments[previous].start().is_some() => Some(previous),
            Ok(broken) => {
                found.clear();
                readable_below(broken)
            }
            Err(0) => break,
            Err(_) => return Err(RecoveryError::Missing { segment: start.previous }),
        };
    }
    found.reverse();
    Ok(found)
}
