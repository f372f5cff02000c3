//! The verbs of a rebuild: freeze under a new epoch, read what was never settled, begin anew, load, open.

use super::{
    super::{
        record,
        segment::{Segment, beginning},
    },
    AckLevel, Engine,
};
use crate::{
    Gate, Position, SegmentSpec, SegmentStatus, StockError, StockMoves, StoredOrder, ids::SegmentId,
};

impl Engine {
    pub(in crate::embedded) fn freeze(
        &mut self,
        id: &SegmentId,
        epoch: u64,
    ) -> Result<Option<SegmentStatus>, StockError> {
        let Ok(number) = self.number(id) else {
            return Ok(None);
        };
        if let Some(event) = self.segments[number as usize].decide_freeze(epoch)? {
            self.can_write()?;
            self.commit(number, &event);
        }
        Ok(Some(self.segments[number as usize].snapshot()))
    }

    pub(in crate::embedded) fn unsettled(
        &self,
        id: &SegmentId,
        after: Position,
        max: usize,
    ) -> Vec<(Position, StoredOrder)> {
        self.segment(id)
            .map_or_else(|_| Vec::new(), |segment| segment.unsettled(after, max))
    }

    pub(in crate::embedded) fn rebuild_begin(
        &mut self,
        spec: &SegmentSpec,
        epoch: u64,
        moves: &StockMoves,
    ) -> Result<(), StockError> {
        if let Ok(number) = self.number(&spec.id) {
            let event = self.segments[number as usize].decide_begin(spec, epoch, moves)?;
            self.can_write()?;
            self.commit(number, &event);
            return Ok(());
        }
        let beginning = beginning(spec, epoch, moves)?;
        self.can_write()?;
        self.ack_level = AckLevel::Firm;
        record::encode_begun(&mut self.body, &beginning);
        self.insert(Segment::begun(&beginning));
        Ok(())
    }

    pub(in crate::embedded) fn rebuild_load(
        &mut self,
        id: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
    ) -> Result<(), StockError> {
        let number = self.number(id)?;
        let events = self.segments[number as usize].decide_load(epoch, orders)?;
        self.can_write()?;
        for event in events {
            self.commit(number, &event);
        }
        Ok(())
    }

    pub(in crate::embedded) fn rebuild_finish(
        &mut self,
        id: &SegmentId,
        epoch: u64,
        gate: Gate,
    ) -> Result<SegmentStatus, StockError> {
        let number = self.number(id)?;
        let event = self.segments[number as usize].decide_finish(epoch, gate)?;
        self.can_write()?;
        self.commit(number, &event);
        Ok(self.segments[number as usize].snapshot())
    }
}
