//! Torn, corrupted and locked journals.

use std::{fs, path::Path};

use super::*;

fn open(folder: &Path, method: Method) -> Result<(Journal, Vec<Vec<u8>>), RecoverError> {
    let mut bodies = Vec::new();
    let journal = Journal::open(folder, Sync::Durable, method, |body| {
        bodies.push(body.to_vec());
        Ok(())
    })?;
    Ok((journal, bodies))
}

fn write_three(folder: &Path, method: Method) {
    let (mut journal, _) = open(folder, method).unwrap();
    for body in [b"first".as_slice(), b"second", b"third"] {
        journal.append(body).unwrap();
    }
}

fn bytes(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("journal.log")).unwrap()
}

#[test]
fn both_writers_produce_the_same_file_and_it_reads_back() {
    let (plain, auto) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_three(plain.path(), Method::Plain);
    write_three(auto.path(), Method::Auto);
    assert_eq!(bytes(plain.path()), bytes(auto.path()));
    assert_eq!(
        open(auto.path(), Method::Auto).unwrap().1,
        [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]
    );
}

#[test]
fn a_frame_larger_than_the_registered_buffer_goes_the_plain_way() {
    let folder = tempfile::tempdir().unwrap();
    let body = vec![7u8; (1 << 20) + 1];
    open(folder.path(), Method::Auto)
        .unwrap()
        .0
        .append(&body)
        .unwrap();
    assert_eq!(open(folder.path(), Method::Auto).unwrap().1, [body]);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_appending_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    write_three(folder.path(), Method::Plain);
    let whole = bytes(folder.path());
    let last_frame = whole.len() - (HEADER_LEN + b"third".len());
    for cut in last_frame..whole.len() {
        fs::write(folder.path().join("journal.log"), &whole[..cut]).unwrap();
        let (mut journal, bodies) = open(folder.path(), Method::Plain).unwrap();
        assert_eq!(
            bodies,
            [b"first".to_vec(), b"second".to_vec()],
            "cut at {cut}"
        );
        journal.append(b"again").unwrap();
        drop(journal);
        assert_eq!(open(folder.path(), Method::Plain).unwrap().1[2], b"again");
    }
}

#[test]
fn a_flipped_byte_anywhere_before_the_last_frame_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_three(folder.path(), Method::Plain);
    let whole = bytes(folder.path());
    for at in 0..whole.len() - (HEADER_LEN + b"third".len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(folder.path().join("journal.log"), &damaged).unwrap();
        assert!(
            matches!(
                open(folder.path(), Method::Plain),
                Err(RecoverError::Corrupt { .. })
            ),
            "flipped byte {at}"
        );
        assert_eq!(
            bytes(folder.path()),
            damaged,
            "a refused journal is left as it is"
        );
    }
}

#[test]
fn a_damaged_last_frame_counts_as_torn() {
    let folder = tempfile::tempdir().unwrap();
    write_three(folder.path(), Method::Plain);
    let mut damaged = bytes(folder.path());
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(folder.path().join("journal.log"), &damaged).unwrap();
    assert_eq!(open(folder.path(), Method::Plain).unwrap().1.len(), 2);
}

#[test]
fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path(), Method::Plain).unwrap();
    assert!(matches!(
        open(folder.path(), Method::Plain),
        Err(RecoverError::InUse { .. })
    ));
}

#[test]
fn a_fast_journal_is_cut_at_the_first_bad_frame() {
    let folder = tempfile::tempdir().unwrap();
    write_three(folder.path(), Method::Plain);
    let mut damaged = bytes(folder.path());
    damaged[HEADER_LEN + b"first".len() + HEADER_LEN] ^= 1;
    fs::write(folder.path().join("journal.log"), &damaged).unwrap();
    let mut bodies = 0;
    let count = |_: &[u8]| {
        bodies += 1;
        Ok(())
    };
    Journal::open(folder.path(), Sync::Fast, Method::Plain, count).unwrap();
    assert_eq!(
        bodies, 1,
        "the page cache may have lost any frame, so the gap is no corruption"
    );
}
