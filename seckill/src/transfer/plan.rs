//! Which units go where: pure arithmetic over the counts of a sku's segments.
//!
//! The chunk is half of the richest segment, but at least what is wanted. Every transfer to a segment follows the sale of what the
//! one before it brought there, and that was at least half of an even share: while between S and S/2 units are left, a transfer
//! brings S/4n or more, so at most 4n of them fit into that half, and n more for the homes that were never served. There are
//! log2 S such halves: a sale of S units in n segments needs O(n log S) transfers, not one a purchase.

/// Units to move from one segment to another, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Who gives.
    pub source: usize,
    /// Who takes.
    pub destination: usize,
    /// How many.
    pub units: u64,
}

/// The next chunk for a segment that needs `wanted` units at once. `available` has a number for every segment that can give or
/// take (none for one that does not answer or is frozen); `is_kept` says from which nothing is taken. `None` if the segment has
/// enough, or nobody has any.
pub fn toward(
    available: &[Option<u64>],
    is_kept: impl Fn(usize) -> bool,
    destination: usize,
    wanted: u64,
) -> Option<Chunk> {
    let missing = wanted.checked_sub(available[destination]?)?;
    if missing == 0 {
        return None;
    }
    let givers = available.iter().enumerate().filter_map(|(place, units)| {
        let units = units.filter(|units| *units > 0 && place != destination && !is_kept(place))?;
        Some((units, place))
    });
    // The first of equals, so that two nodes choose alike.
    let (richest, source) = givers.max_by_key(|(units, place)| (*units, usize::MAX - place))?;
    Some(Chunk {
        source,
        destination,
        units: richest.div_ceil(2).max(missing.min(richest)),
    })
}

/// A chunk that lets an empty segment sell again before a buyer has to wait for it: half of the richest. A single unit stays
/// where it is: wherever it went, all other homes were empty still, and a buyer who asks for it gets it.
pub fn balance(available: &[Option<u64>]) -> Option<Chunk> {
    let destination = available.iter().position(|units| *units == Some(0))?;
    let others = available.iter().enumerate();
    let (richest, source) = others
        .filter_map(|(place, units)| Some(((*units)?, place)))
        .max_by_key(|(units, place)| (*units, usize::MAX - place))?;
    (richest >= 2).then_some(Chunk {
        source,
        destination,
        units: richest / 2,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(units: &[u64]) -> Vec<Option<u64>> {
        units.iter().copied().map(Some).collect()
    }

    fn nobody(_: usize) -> bool {
        false
    }

    #[test]
    fn a_chunk_is_half_of_the_richest_or_what_is_wanted() {
        let units = known(&[0, 5, 9]);
        let chunk = |units, source| {
            Some(Chunk {
                source,
                destination: 0,
                units,
            })
        };
        assert_eq!(toward(&units, nobody, 0, 1), chunk(5, 2));
        assert_eq!(toward(&units, nobody, 0, 7), chunk(7, 2));
        assert_eq!(toward(&units, nobody, 0, 100), chunk(9, 2));
        assert_eq!(toward(&units, |place| place == 2, 0, 1), chunk(3, 1));
        assert_eq!(toward(&units, nobody, 1, 5), None, "it has enough");
        assert_eq!(toward(&known(&[0, 0]), nobody, 0, 1), None);
        assert_eq!(
            toward(&[None, Some(4)], nobody, 0, 1),
            None,
            "a frozen home takes nothing"
        );
    }

    #[test]
    fn balancing_feeds_the_empty_and_ends() {
        let mut units = known(&[0, 0, 7, 0]);
        let mut chunks = 0;
        while let Some(chunk) = balance(&units) {
            units[chunk.source] = units[chunk.source].map(|had| had - chunk.units);
            units[chunk.destination] = units[chunk.destination].map(|had| had + chunk.units);
            chunks += 1;
        }
        assert_eq!(units, known(&[2, 2, 2, 1]));
        assert_eq!(chunks, 3);
        assert_eq!(balance(&known(&[1, 0, 1])), None);
        assert_eq!(balance(&[None, Some(9)]), None);
    }

    proptest! {
        // The bound that the module's head argues for: any order of buyers, any cut.
        #[test]
        fn a_sale_needs_few_transfers(
            parts in 2_usize..=16,
            stock in 1_u64..4_000,
            buyers in prop::collection::vec(any::<u16>(), 1..64),
        ) {
            let mut units: Vec<_> = crate::sale::shares(stock, parts).map(Some).collect();
            let (mut transfers, mut sold) = (0_u32, 0);
            'sale: for buyer in buyers.iter().cycle() {
                let home = usize::from(*buyer) % parts;
                if units[home] == Some(0) {
                    let Some(chunk) = toward(&units, nobody, home, 1) else { break 'sale };
                    units[chunk.source] = units[chunk.source].map(|had| had - chunk.units);
                    units[chunk.destination] = units[chunk.destination].map(|had| had + chunk.units);
                    transfers += 1;
                }
                units[home] = units[home].map(|had| had - 1);
                sold += 1;
            }
            prop_assert_eq!(sold, stock, "nothing stays unsold");
            let bound = parts as u32 * (stock.ilog2() + 1) * 2;
            prop_assert!(transfers <= bound, "{} transfers of {}", transfers, bound);
        }
    }
}
