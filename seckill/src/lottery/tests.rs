//! The draw against vectors that another program made, and what nobody can change afterwards.

use proptest::prelude::*;

use super::*;

const BUYERS: [&str; 5] = ["ann", "bob", "cat", "dan", "eve"];

fn sale() -> SaleId {
    "spring".parse().unwrap()
}

fn seed() -> Seed {
    Seed::new(std::array::from_fn(|place| place as u8))
}

fn entry(buyer: &str) -> String {
    let place = BUYERS.iter().position(|known| *known == buyer).unwrap();
    let nonce = new_nonce(place as u128 + 1);
    entry_of(&sale(), &buyer.parse().unwrap(), &nonce)
}

fn draw(beacon: &str) -> (Published, Vec<String>) {
    let mut entries: Vec<String> = BUYERS.map(entry).to_vec();
    entries.sort();
    let mut roll = Roll::default();
    assert!(entries.iter().all(|entry| roll.add(entry)));
    let (count, root) = roll.finish();
    let draw = Published {
        sale: sale(),
        commitment: seed().commitment(),
        seed: seed().to_hex(),
        beacon_source: beacon.to_owned(),
        beacon: beacon.to_owned(),
        entries: count,
        root,
        rounds: vec![Round {
            round: 1,
            first: 0,
            count: 5,
            at_ms: 0,
        }],
    };
    (draw, entries)
}

fn again(draw: &Published, entries: &[String]) -> Verdict {
    verify(draw, entries.iter().map(String::as_str))
}

// Made with Python's hashlib and hmac; docs/sales.md has the program.
#[test]
fn the_draw_is_that_of_the_published_vectors() {
    assert_eq!(
        seed().commitment(),
        "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd"
    );
    assert_eq!(
        entry("ann"),
        "0bf7ad2f0247225a85eb48e61c377ca36aebeffce13407e00148605f57dfe1bb"
    );
    let (draw_plain, entries) = draw("");
    assert_eq!(
        draw_plain.root,
        "62fe56b96b21ae5dad6101bd97be359a4896d9ea0ae3e98c6261fef4dc9ad7f1"
    );
    let order = |draw: &Published| {
        let verdict = again(draw, &entries);
        assert_eq!(verdict.faults, Vec::<String>::new());
        let name = |won: &String| BUYERS.into_iter().find(|buyer| entry(buyer) == *won);
        verdict
            .winners
            .iter()
            .map(|won| name(won).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(order(&draw_plain), ["eve", "ann", "bob", "dan", "cat"]);
    assert_eq!(order(&draw("42").0), ["eve", "dan", "ann", "bob", "cat"]);
}

#[test]
fn whatever_is_changed_afterwards_shows() {
    let (good, entries) = draw("42");
    type Change = fn(&mut Published, &mut Vec<String>);
    let changes: [(&str, Change); 8] = [
        ("another seed", |draw, _| draw.seed = "11".repeat(32)),
        ("another commitment", |draw, _| {
            draw.commitment = "11".repeat(32)
        }),
        ("no seed", |draw, _| draw.seed.clear()),
        ("an entry left out", |_, entries| drop(entries.remove(2))),
        ("an entry put in", |_, entries| entries.push("f".repeat(64))),
        ("an entry twice", |_, entries| {
            entries.insert(1, entries[0].clone())
        }),
        ("a beacon nobody announced", |draw, _| {
            draw.beacon_source.clear()
        }),
        ("a place passed over", |draw, _| draw.rounds[0].first = 1),
    ];
    for (what, change) in changes {
        let (mut draw, mut entries) = (good.clone(), entries.clone());
        change(&mut draw, &mut entries);
        assert_ne!(
            again(&draw, &entries).faults,
            Vec::<String>::new(),
            "{what}"
        );
    }
    // Another beacon is another draw, which whoever has the beacon sees.
    let mut other = good.clone();
    other.beacon = "43".to_owned();
    assert_ne!(
        again(&other, &entries).winners,
        again(&good, &entries).winners
    );
}

#[test]
fn seeds_are_read_as_they_are_written() {
    assert_eq!(Seed::from_hex(&seed().to_hex()), Some(seed()));
    for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
        assert_eq!(Seed::from_hex(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn a_selection_is_the_head_of_the_whole_order(count in 0usize..200, most in 0usize..60, salt in any::<u64>()) {
        let entries: Vec<String> = (0..count)
            .map(|n| entry_of(&sale(), &"ann".parse().unwrap(), &format!("{salt}-{n}")))
            .collect();
        let ranking = || Ranking::new(&seed(), &sale(), count as u64, "root", "");
        let mut whole = entries.clone();
        let all = ranking();
        whole.sort_by_key(|entry| (all.rank(entry), entry.clone()));
        whole.truncate(most);
        let mut selection = Selection::new(ranking(), most);
        entries.iter().for_each(|entry| selection.add(entry));
        prop_assert_eq!(selection.finish(), whole);
    }
}
