//! Words to Redis and back: one buffer for a batch, and answers that nobody can read.

use super::*;
use crate::{CartLine, Position};

#[test]
fn a_buyer_that_looks_like_a_poison_mark_is_still_an_order() {
    // "!" is a legal buyer, so the mark must only count at its place.
    let order = OrderId::from_u128(9);
    let entries =
        read_entries(&format!("5-0 2 1 {order} R 1 10 20 00000000000000ff ! r1")).unwrap();
    assert_eq!(entries[0].order.as_ref().unwrap().buyer.as_str(), "!");
    let entries = read_entries("5-0 2 3 ! the entry has no order id").unwrap();
    assert_eq!(
        entries[0].order,
        Err("the entry has no order id".to_owned())
    );
    assert_eq!(
        (entries[0].deliveries, entries[0].position),
        (3, Position { major: 5, minor: 0 })
    );
}

#[test]
fn an_unreadable_answer_is_an_error_and_not_a_panic() {
    for answer in [
        "",
        "9 1 5 6",
        "9 1 5\nA",
        "0 1 5 6\nA",
        "9 1 5 6\nZ",
        "9 1 5 6\nA x y",
        "9 1 5 6\nL 1",
        "9 1 5 6\nR ord_x R 1",
        "9 1 5 6\nN 1",
    ] {
        let purchase = Purchase {
            order: OrderId::from_u128(1),
            buyer: "b".parse().unwrap(),
            request: "r".parse().unwrap(),
            fingerprint: 0,
            quantity: 1,
            metadata: None,
        };
        assert!(read_verdicts(answer, &[purchase]).is_err(), "{answer:?}");
    }
    for answer in [
        "",
        "1 2",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 Z 0 -",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 O 2 -",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 O 0 x",
    ] {
        let segment = SegmentId::first("s".parse().unwrap(), "k".parse().unwrap());
        assert!(read_snapshot(answer, &segment).is_err(), "{answer:?}");
    }
    let two = [OrderId::from_u128(1), OrderId::from_u128(2)];
    assert!(read_transitions("+?", &two).is_err() && read_transitions("+", &two).is_err());
    assert!(
        read_page("nonsense").is_err()
            && read_page("").is_err()
            && read_depth("1").is_err()
            && read_found("x").is_err()
    );
}

/// Records in servers have this form: without metadata, they are read as ever.
#[test]
fn a_record_is_read_with_and_without_metadata() {
    let entries =
        [("k", "a b"), ("l", "\\ \"")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let metadata = Metadata::try_new(entries).unwrap();
    let content = Content(0xab, &metadata).to_string();
    assert_eq!(
        content,
        r#"00000000000000ab{"k":"a\u0020b","l":"\\\u0020\""}"#
    );
    let read = |content: &str| {
        let id = OrderId::from_u128(9);
        read_found(&format!("{id} R 1 10 20 {content} ann r1"))
    };
    let with = read(&content).unwrap().unwrap();
    assert_eq!((with.fingerprint, with.metadata), (0xab, metadata));
    assert_eq!((with.buyer.as_str(), with.request.as_str()), ("ann", "r1"));
    let without = read("00000000000000ab").unwrap().unwrap();
    assert_eq!((without.fingerprint, without.metadata), (0xab, None));
    assert_eq!(Content(0xab, &None).to_string(), "00000000000000ab");
    for bad in [
        "ab",
        "00000000000000ab{",
        "00000000000000abx",
        "00000000000000ag",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_batch_is_written_into_one_buffer() {
    let purchase = |n: u64| Purchase {
        order: OrderId::new(1, 2, n),
        buyer: "ann".parse().unwrap(),
        request: "r-1".parse().unwrap(),
        fingerprint: 0xab,
        quantity: 12,
        metadata: None,
    };
    let purchases = [purchase(1), purchase(2)];
    let args = buy_args(7, &purchases);
    let words: Vec<_> = args.iter().map(|arg| arg.as_string().unwrap()).collect();
    let ids = purchases.map(|purchase| purchase.order.to_string());
    let of = |id: &str| [id, "ann", "00000000000000ab ann r-1", "12"].map(str::to_owned);
    assert_eq!(words[0], "7");
    assert_eq!(words[1..], [of(&ids[0]), of(&ids[1])].concat());
    let pieces: Vec<&Bytes> = args[1..]
        .iter()
        .map(|arg| match arg {
            Value::Bytes(piece) => piece,
            other => panic!("{other:?}"),
        })
        .collect();
    for piece in pieces.chunks(4) {
        let [order, buyer, content, quantity] = piece else {
            panic!("{piece:?}")
        };
        assert_eq!(order.as_ptr_range().end, content.as_ptr());
        assert!(content.as_ptr_range().contains(&buyer.as_ptr()));
        assert_eq!(content.as_ptr_range().end, quantity.as_ptr());
    }
}

#[test]
fn accepted_purchases_count_down_from_the_first_line() {
    let purchases = [3, 1, 2].map(|quantity| Purchase {
        order: OrderId::from_u128(quantity.into()),
        buyer: "ann".parse().unwrap(),
        request: "r-1".parse().unwrap(),
        fingerprint: 0xab,
        quantity,
        metadata: None,
    });
    let verdicts = read_verdicts("9 4 50 60\nA\nP\nA", &purchases).unwrap();
    let accepted = |index: usize, remaining, version| Verdict::Accepted {
        order: purchases[index].reserved(50, 60),
        remaining,
        version,
    };
    let expected = [accepted(0, 6, 5), Verdict::Paused, accepted(2, 4, 6)];
    assert_eq!(verdicts, expected);
}

#[test]
fn numbers_that_lua_would_round_are_refused() {
    assert!(number(MAX_UNITS, "stock").is_ok());
    assert!(
        matches!(number(MAX_UNITS + 1, "stock"), Err(StockError::Unavailable(text)) if text.contains("2^53"))
    );
}

#[test]
fn an_unreadable_cart_is_an_error_and_not_a_panic() {
    let line = |sku: &str| {
        let segment = SegmentId::of_cart("s".parse().unwrap(), sku.parse().unwrap());
        let purchase = Purchase {
            order: OrderId::from_u128(1),
            buyer: "b".parse().unwrap(),
            request: "r".parse().unwrap(),
            fingerprint: 0,
            quantity: 1,
            metadata: None,
        };
        CartLine {
            segment,
            epoch: 1,
            purchase,
        }
    };
    let lines = [line("a"), line("b")];
    for answer in [
        "",
        "X",
        "X 2 E",
        "X 0 Z",
        "X a E",
        "A 1 1 1 1",
        "A 1 1 1 1\nR x",
        "R x\nR y",
        "K\nK",
    ] {
        assert!(read_cart(answer, &lines).is_err(), "{answer:?}");
    }
}

#[test]
fn epochs_whose_versions_would_be_rounded_are_refused() {
    assert!(epoch_arg(1 << 20).is_ok());
    assert!(matches!(
        epoch_arg((1 << 20) + 1),
        Err(StockError::Unavailable(_))
    ));
}
