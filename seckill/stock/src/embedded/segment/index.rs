//! From a hash to an index, in tables of bounded size: no insertion ever moves more than one table's entries, so growing to
//! millions of orders never makes a batch wait (a single table would stop for a tenth of a second at ten million).
//!
//! Extendible hashing: the top bits of a hash choose the table; a full table is split in two.

use hashbrown::HashTable;

/// A table of 2^16 slots is full at seven eighths; then it is split instead of grown.
const TABLE_MAX: usize = (1 << 16) / 8 * 7;
/// Beyond 2^16 tables (3 billion entries) tables grow instead.
const DEPTH_MAX: u32 = 16;

#[derive(Clone, Copy)]
struct Entry {
    /// The upper half of the hash. Two keys with the same are told apart by the caller.
    tag: u32,
    at: u32,
}

struct Table {
    depth: u32,
    entries: HashTable<Entry>,
}

/// The index. Eight bytes an entry, and one for the slot's control byte.
pub(super) struct Index {
    /// Which table has the hashes that begin with these bits.
    directory: Vec<u32>,
    depth: u32,
    tables: Vec<Table>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            directory: vec![0],
            depth: 0,
            tables: vec![Table {
                depth: 0,
                entries: HashTable::new(),
            }],
        }
    }
}

/// Spreads a tag over 64 bits: the table takes its slot from the low ones and its control byte from the top.
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    fn slot(&self, tag: u32) -> usize {
        // In u64: a shift by 32 is no shift in u32.
        (u64::from(tag) >> (32 - self.depth)) as usize
    }

    /// The index that has this hash and is the one looked for.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = (hash >> 32) as u32;
        let table = &self.tables[self.directory[self.slot(tag)] as usize];
        let found = table
            .entries
            .find(spread(tag), |entry| entry.tag == tag && is_it(entry.at));
        found.map(|entry| entry.at)
    }

    /// Adds an index; the caller knows that its key is new.
    pub(super) fn insert(&mut self, hash: u64, at: u32) {
        let tag = (hash >> 32) as u32;
        loop {
            let number = self.directory[self.slot(tag)];
            let table = &mut self.tables[number as usize];
            if table.entries.len() < TABLE_MAX || table.depth == DEPTH_MAX {
                table
                    .entries
                    .insert_unique(spread(tag), Entry { tag, at }, |entry| spread(entry.tag));
                return;
            }
            self.split(number);
        }
    }

    fn split(&mut self, number: u32) {
        let table = &mut self.tables[number as usize];
        table.depth += 1;
        let (depth, bit) = (table.depth, 1 << (32 - table.depth));
        let mut halves = [HashTable::new(), HashTable::new()];
        for entry in table.entries.drain() {
            halves[usize::from(entry.tag & bit != 0)].insert_unique(
                spread(entry.tag),
                entry,
                |entry| spread(entry.tag),
            );
        }
        let [low, high] = halves;
        table.entries = low;
        let new = self.tables.len() as u32;
        self.tables.push(Table {
            depth,
            entries: high,
        });
        if depth > self.depth {
            self.directory = self
                .directory
                .iter()
                .flat_map(|&table| [table, table])
                .collect();
            self.depth = depth;
        }
        // Of the run of slots that named the table, the upper half now names the new one.
        let run = self.directory.iter().filter(|&&table| table == number);
        let (first, length) = (
            self.directory.iter().position(|&table| table == number),
            run.count(),
        );
        let first = first.expect("a table is named by the directory");
        self.directory[first + length / 2..first + length].fill(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_found_after_many_splits() {
        let mut index = Index::default();
        let hash = |n: u32| ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n);
        const COUNT: u32 = 400_000;
        for n in 0..COUNT {
            index.insert(hash(n), n);
        }
        assert!(index.tables.len() >= 8, "{}", index.tables.len());
        assert!(
            index
                .tables
                .iter()
                .all(|table| table.entries.len() <= TABLE_MAX)
        );
        for n in 0..COUNT {
            assert_eq!(index.find(hash(n), |at| at == n), Some(n));
        }
        assert_eq!(index.find(hash(COUNT), |at| at == COUNT), None);
    }

    #[test]
    fn equal_hashes_are_told_apart() {
        let mut index = Index::default();
        for n in 0..100 {
            index.insert(7 << 32, n);
        }
        assert_eq!(index.find(7 << 32, |at| at == 42), Some(42));
        assert_eq!(index.find(7 << 32, |at| at == 100), None);
    }
}
