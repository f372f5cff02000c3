//! The consistent-hash ring: a key's endpoint stays the same while the set of endpoints does, and moves little when it changes.
//!
//! Ketama's idea: every endpoint owns many points of a circle of 64-bit numbers; a key belongs to the first point at or
//! after its hash. When an endpoint leaves, only its own keys move, spread over all others. Pure: no clock, no I/O.
//!
//! On the path: `forward.rs` walks the ring from a request's hash until it meets an endpoint that may be asked.

/// Points of an endpoint of weight 1. An endpoint's share of the circle differs from even by about 1/√points, so 1024 keep it
/// within 3 % (one standard deviation) and every one of ten endpoints within 15 % for practical purposes.
pub const POINTS: usize = 1024;

/// The most points of a ring: 12 MiB. Beyond it every endpoint gets fewer.
const POINTS_MAX: usize = 1 << 20;

/// A ring over endpoints 0..n. Built once per set of endpoints and then only read.
#[derive(Clone, Debug)]
pub struct Ring {
    points: Box<[u64]>,
    /// The endpoint that owns the point of the same index.
    owners: Box<[u16]>,
    endpoints: usize,
}

/// The endpoints in the order in which a key should try them, each once.
#[derive(Clone, Debug)]
pub struct Walk<'r> {
    ring: &'r Ring,
    at: usize,
    /// Points left to look at.
    left: usize,
    seen: u128,
}

impl Ring {
    /// A ring over endpoints with names and weights. A name's points depend on that name alone, so that two gateways with
    /// lists in different order agree. At most 128 endpoints; weights count from 1.
    pub fn new(endpoints: &[(&str, u32)]) -> Self {
        Self::with_points(endpoints, POINTS)
    }

    /// The same with another number of points for weight 1.
    pub fn with_points(endpoints: &[(&str, u32)], points: usize) -> Self {
        assert!(endpoints.len() <= 128, "a walk marks endpoints in 128 bits");
        // 2:4 is 1:2. Weights without a common divisor keep `points` for the lightest.
        let divisor = endpoints
            .iter()
            .map(|(_, weight)| (*weight).max(1))
            .fold(0, gcd)
            .max(1);
        let units: usize = endpoints
            .iter()
            .map(|(_, weight)| ((*weight).max(1) / divisor) as usize)
            .sum();
        let per_unit = points.min(POINTS_MAX / units.max(1)).max(1);

        let mut pairs: Vec<(u64, u16)> = Vec::with_capacity(units * per_unit);
        for (owner, (name, weight)) in endpoints.iter().enumerate() {
            let seed = hash64(name.as_bytes());
            let count = ((*weight).max(1) / divisor) as usize * per_unit;
            let point = |replica: usize| (scatter(seed, replica as u64), owner as u16);
            pairs.extend((0..count).map(point));
        }
        // A point that two endpoints claim goes to the one whose name sorts first, whatever the order of the list.
        pairs.sort_unstable_by_key(|(point, owner)| (*point, endpoints[usize::from(*owner)].0));
        pairs.dedup_by_key(|(point, _)| *point);
        Self {
            points: pairs.iter().map(|(point, _)| *point).collect(),
            owners: pairs.iter().map(|(_, owner)| *owner).collect(),
            endpoints: endpoints.len(),
        }
    }

    /// The endpoint of a hash, or `None` on an empty ring.
    pub fn owner(&self, hash: u64) -> Option<usize> {
        self.walk(hash).next()
    }

    /// All endpoints in the order in which this hash should try them.
    pub fn walk(&self, hash: u64) -> Walk<'_> {
        Walk {
            ring: self,
            at: self.points.partition_point(|point| *point < hash),
            left: self.points.len(),
            seen: 0,
        }
    }

    /// The share of the circle that each endpoint owns; sums to 1.
    pub fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.endpoints];
        let mut before = self.points.last().copied().unwrap_or(0);
        for (point, owner) in self.points.iter().zip(&self.owners) {
            // The first arc wraps around zero.
            shares[usize::from(*owner)] += point.wrapping_sub(before) as f64 / 2f64.powi(64);
            before = *point;
        }
        shares
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.left > 0 {
            self.left -= 1;
            if self.at >= self.ring.owners.len() {
                self.at = 0;
            }
            let owner = usize::from(self.ring.owners[self.at]);
            self.at += 1;
            let bit = 1u128 << owner;
            if self.seen & bit == 0 {
                self.seen |= bit;
                if self.seen.count_ones() as usize == self.ring.endpoints {
                    self.left = 0;
                }
                return Some(owner);
            }
        }
        None
    }
}

/// A fast hash of 64 bits for keys and names: the 64×64→128-bit multiply-and-fold of wyhash (Wang Yi, public domain), with the
/// secrets of its final version 4. Not secret, not cryptographic: a client that picks its key picks its endpoint, as with every ring.
pub fn hash64(bytes: &[u8]) -> u64 {
    let mut state = SECRET[0] ^ fold(SECRET[0], SECRET[1]);
    let chunks = bytes.chunks_exact(16);
    let tail = chunks.remainder();
    for chunk in chunks {
        state = fold(word(&chunk[..8]) ^ SECRET[1], word(&chunk[8..]) ^ state);
    }
    let (low, high) = tail.split_at(tail.len().min(8));
    let mixed = fold(word(low) ^ SECRET[1], word(high) ^ state);
    fold(mixed ^ SECRET[0] ^ bytes.len() as u64, mixed ^ SECRET[2])
}

const SECRET: [u64; 3] = [
    0x2d35_8dcc_aa6c_78a5,
    0x8bb8_4b93_962e_acc9,
    0x4b33_a62e_d433_d4a3,
];

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Up to eight bytes, little endian.
fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

/// The n-th point of a name: splitmix64's output function (Vigna) over a sequence that starts at the name's hash.
fn scatter(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(count: usize, salt: u32) -> Vec<String> {
        let address = |at| format!("10.{}.{}.{at}:3000", salt >> 8 & 255, salt & 255);
        (0..count).map(address).collect()
    }

    fn ring(names: &[String]) -> Ring {
        let pairs: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        Ring::new(&pairs)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn balance_is_within_15_percent_of_even(count in 1usize..=16, salt in 0u32..65536) {
            for share in ring(&addresses(count, salt)).shares() {
                let relative = share * count as f64;
                prop_assert!((0.85..=1.15).contains(&relative), "share is {relative} of even");
            }
        }

        #[test]
        fn a_leaving_endpoint_moves_its_own_keys_only_and_few(
            count in 2usize..=16, leaver in 0usize..16, salt in 0u32..65536,
        ) {
            let leaver = leaver % count;
            let names = addresses(count, salt);
            let mut fewer = names.clone();
            fewer.remove(leaver);
            let (before, after) = (ring(&names), ring(&fewer));
            let keys = 20_000;
            let mut moved = 0;
            for key in 0..keys {
                let hash = hash64(&u32::to_le_bytes(key));
                let (old, new) = (before.owner(hash).unwrap(), after.owner(hash).unwrap());
                if names[old] != fewer[new] {
                    prop_assert_eq!(old, leaver, "a key of a staying endpoint moved");
                    moved += 1;
                }
            }
            prop_assert!(f64::from(moved) <= 1.5 * f64::from(keys) / count as f64, "{moved} moved");
        }

        #[test]
        fn a_walk_visits_every_endpoint_once(count in 1usize..=40, hash: u64) {
            let mut visited: Vec<usize> = ring(&addresses(count, 7)).walk(hash).collect();
            visited.sort_unstable();
            prop_assert_eq!(visited, (0..count).collect::<Vec<_>>());
        }

        #[test]
        fn a_walk_goes_on_where_keys_go_when_the_owner_leaves(hash: u64) {
            let names = addresses(5, 9);
            let whole = ring(&names);
            let mut walk = whole.walk(hash);
            let (first, second) = (walk.next().unwrap(), walk.next().unwrap());
            let mut fewer = names.clone();
            fewer.remove(first);
            let heir = ring(&fewer).owner(hash).unwrap();
            prop_assert_eq!(&fewer[heir], &names[second]);
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(hash: u64) {
            let names = addresses(6, 3);
            let mut turned = names.clone();
            turned.reverse();
            let (one, other) = (ring(&names), ring(&turned));
            prop_assert_eq!(&names[one.owner(hash).unwrap()], &turned[other.owner(hash).unwrap()]);
        }
    }

    #[test]
    fn weights_are_shares() {
        let ring = Ring::new(&[("a:1", 2), ("b:1", 4), ("c:1", 2)]);
        let shares = ring.shares();
        for (share, wanted) in shares.iter().zip([0.25, 0.5, 0.25]) {
            assert!((share / wanted - 1.0).abs() < 0.15, "{shares:?}");
        }
    }

    #[test]
    fn an_empty_ring_has_no_owner() {
        assert_eq!(Ring::new(&[]).owner(1), None);
    }

    #[test]
    fn similar_keys_are_spread() {
        let ring = ring(&addresses(4, 1));
        let mut counts = [0u32; 4];
        for buyer in 0..40_000 {
            counts[ring
                .owner(hash64(format!("buyer-{buyer}").as_bytes()))
                .unwrap()] += 1;
        }
        assert!(
            counts.iter().all(|count| (8_000..12_000).contains(count)),
            "{counts:?}"
        );
    }
}
