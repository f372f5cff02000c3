//! A growing array in chunks that are shared by reference: a copy of it costs one reference a chunk, and later changes copy
//! only the chunks they touch. That is how a snapshot is taken between two batches without stopping purchases.

use std::sync::Arc;

/// Items of one chunk. Small enough that copying one on the first change after a snapshot takes microseconds, large enough that
/// ten million items are a few thousand references.
pub(crate) const CHUNK: usize = 4096;

/// The array. Cloning shares all chunks.
#[derive(Clone)]
pub(crate) struct Chunked<T> {
    chunks: Vec<Arc<Vec<T>>>,
    len: u32,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Copy> Chunked<T> {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn chunks(&self) -> &[Arc<Vec<T>>] {
        &self.chunks
    }

    /// Appends and answers the index.
    pub(crate) fn push(&mut self, item: T) -> u32 {
        if self.len as usize == self.chunks.len() * CHUNK {
            self.chunks.push(Arc::default());
        }
        let last = self
            .chunks
            .last_mut()
            .expect("a chunk was pushed if there was none");
        own(last).push(item);
        self.len += 1;
        self.len - 1
    }

    /// Panics beyond the end: indexes come from tables that hold only pushed ones.
    pub(crate) fn at(&self, index: u32) -> T {
        self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    pub(crate) fn set(&mut self, index: u32, item: T) {
        own(&mut self.chunks[index as usize / CHUNK])[index as usize % CHUNK] = item;
    }
}

/// The chunk, for changing: copied if a snapshot still reads it. The copy has room to grow, but no more than it will need.
fn own<T: Copy>(chunk: &mut Arc<Vec<T>>) -> &mut Vec<T> {
    if Arc::get_mut(chunk).is_none() {
        let mut copy = Vec::with_capacity((chunk.len() + 1).next_power_of_two().min(CHUNK));
        copy.extend_from_slice(chunk);
        *chunk = Arc::new(copy);
    }
    Arc::get_mut(chunk).expect("just made the only reference")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_copy_never_sees_later_changes() {
        let mut array = Chunked::default();
        for n in 0..CHUNK as u32 + 10 {
            assert_eq!(array.push(n), n);
        }
        let shared = array.clone();
        array.set(3, 1_000);
        array.push(7);
        assert_eq!((shared.len(), shared.at(3)), (CHUNK as u32 + 10, 3));
        assert_eq!((array.len(), array.at(3)), (CHUNK as u32 + 11, 1_000));
        assert_eq!(shared.at(CHUNK as u32 + 9), CHUNK as u32 + 9);
        assert!(
            Arc::ptr_eq(&array.chunks[0], &array.clone().chunks[0]),
            "chunks are shared, not copied"
        );
    }
}
