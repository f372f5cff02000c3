//! Torn, corrupted, failing and locked journals.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use super::{format::FRAME_HEADER, *};
use crate::embedded::faults::Faults;

type Opened = Result<(Journal, Vec<Vec<u8>>, Progress), RecoverError>;

fn open_with(folder: &Path, write_mode: WriteMode, faults: MaybeFaults) -> Opened {
    let folder = Folder::new(folder);
    let content = folder.clean()?;
    let (mut bodies, mut progress) = (Vec::new(), Progress::default());
    let journal = super::open(
        &folder,
        &content.journals,
        write_mode,
        faults,
        &mut progress,
        |body| {
            bodies.push(body.to_vec());
            Ok(())
        },
    )?;
    Ok((journal, bodies, progress))
}

fn open(folder: &Path, write_mode: WriteMode) -> Result<(Journal, Vec<Vec<u8>>), RecoverError> {
    open_with(folder, write_mode, None).map(|(journal, bodies, _)| (journal, bodies))
}

fn bodies(folder: &Path) -> Vec<Vec<u8>> {
    open(folder, WriteMode::Plain).unwrap().1
}

fn write_three(folder: &Path, write_mode: WriteMode) {
    let (mut journal, _) = open(folder, write_mode).unwrap();
    for body in [b"first".as_slice(), b"second", b"third"] {
        journal.append(body, 0, true).unwrap();
    }
}

fn file(folder: &Path, generation: u64) -> std::path::PathBuf {
    Folder::new(folder).journal(generation)
}

fn bytes(folder: &Path) -> Vec<u8> {
    fs::read(file(folder, 1)).unwrap()
}

/// A disk whose syncs, or whatever is named, fail while it is told so.
#[derive(Default)]
struct Disk {
    failing: Mutex<Vec<FaultPoint>>,
    cut: Mutex<Option<usize>>,
}

impl Faults for Disk {
    fn at(&self, point: FaultPoint) -> io::Result<()> {
        match self.failing.lock().unwrap().contains(&point) {
            true => Err(Errno::IO.into()),
            false => Ok(()),
        }
    }

    fn cut_write(&self, length: usize) -> Option<(usize, io::Error)> {
        let cut = (*self.cut.lock().unwrap())?;
        Some((cut.min(length), Errno::NOSPC.into()))
    }
}

#[test]
fn both_writers_produce_the_same_file_and_it_reads_back() {
    let (plain, auto) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_three(plain.path(), WriteMode::Plain);
    write_three(auto.path(), WriteMode::Auto);
    assert_eq!(bytes(plain.path()), bytes(auto.path()));
    assert_eq!(
        open(auto.path(), WriteMode::Auto).unwrap().1,
        [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]
    );
}

#[test]
fn a_frame_larger_than_the_registered_buffer_goes_the_plain_way() {
    let folder = tempfile::tempdir().unwrap();
    let body = vec![7u8; (1 << 20) + 1];
    let (mut journal, _) = open(folder.path(), WriteMode::Auto).unwrap();
    journal.append(&body, 0, true).unwrap();
    drop(journal);
    assert_eq!(bodies(folder.path()), [body]);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_appending_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    write_three(folder.path(), WriteMode::Plain);
    let whole = bytes(folder.path());
    let last_frame = whole.len() - (FRAME_HEADER + b"third".len());
    for cut in last_frame..whole.len() {
        fs::write(file(folder.path(), 1), &whole[..cut]).unwrap();
        let (mut journal, found) = open(folder.path(), WriteMode::Plain).unwrap();
        assert_eq!(
            found,
            [b"first".to_vec(), b"second".to_vec()],
            "cut at {cut}"
        );
        journal.append(b"again", 0, true).unwrap();
        drop(journal);
        assert_eq!(bodies(folder.path())[2], b"again");
    }
}

#[test]
fn a_header_torn_at_any_byte_is_written_again() {
    for cut in 0..FILE_HEADER {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), WriteMode::Plain).unwrap());
        let whole = bytes(folder.path());
        fs::write(file(folder.path(), 1), &whole[..cut]).unwrap();
        write_three(folder.path(), WriteMode::Plain);
        assert_eq!(bodies(folder.path()).len(), 3, "cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_anywhere_before_the_last_frame_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_three(folder.path(), WriteMode::Plain);
    let whole = bytes(folder.path());
    for at in 0..whole.len() - (FRAME_HEADER + b"third".len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(file(folder.path(), 1), &damaged).unwrap();
        assert!(
            matches!(
                open(folder.path(), WriteMode::Plain),
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
    write_three(folder.path(), WriteMode::Plain);
    let mut damaged = bytes(folder.path());
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(file(folder.path(), 1), &damaged).unwrap();
    assert_eq!(bodies(folder.path()).len(), 2);
}

/// Of a closed file the last frame is promised too: the next file says so.
#[test]
fn a_damaged_last_frame_of_a_closed_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), WriteMode::Plain).unwrap();
    journal.append(b"first", 0, true).unwrap();
    assert_eq!(journal.rotate().unwrap(), 2);
    drop(journal);
    let mut damaged = bytes(folder.path());
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(file(folder.path(), 1), &damaged).unwrap();
    assert!(matches!(
        open(folder.path(), WriteMode::Plain),
        Err(RecoverError::Corrupt { .. })
    ));
}

#[test]
fn files_follow_one_another_and_an_older_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3u8 {
        let (mut journal, found) = open(folder.path(), WriteMode::Auto).unwrap();
        assert_eq!(found.len(), usize::from(round) * 2);
        journal.append(&[round], 7, true).unwrap();
        journal.rotate().unwrap();
        journal.append(&[round, round], 9, true).unwrap();
    }
    let (_, found, progress) = open_with(folder.path(), WriteMode::Plain, None).unwrap();
    let expected: [&[u8]; 6] = [&[0], &[0, 0], &[1], &[1, 1], &[2], &[2, 2]];
    assert_eq!(found, expected);
    assert_eq!((progress.next, progress.clock_ms), (6, 9));
    fs::write(folder.path().join("journal.log"), b"PSJ1").unwrap();
    let refused = open(folder.path(), WriteMode::Plain).err().unwrap();
    assert!(
        refused
            .to_string()
            .contains("has format 1, this program reads format 2 only"),
        "{refused}"
    );
}

/// What was not synced when the machine died may be there in part: it is cut at the first gap, and nothing promised is behind it.
#[test]
fn a_gap_among_frames_that_were_never_synced_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), WriteMode::Plain).unwrap();
    journal.append(b"firm", 0, true).unwrap();
    let firm = bytes(folder.path()).len();
    for body in [b"loose-1", b"loose-2"] {
        journal.append(body, 0, false).unwrap();
    }
    let mut found = bytes(folder.path());
    found.truncate(journal.bytes() as usize);
    drop(journal);
    found[firm + FRAME_HEADER] ^= 1;
    fs::write(file(folder.path(), 1), &found).unwrap();
    assert_eq!(bodies(folder.path()), [b"firm"]);
}

/// The same damage, but a later frame was synced: then everything before it was on the disk.
#[test]
fn a_gap_before_a_promise_is_corruption() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), WriteMode::Plain).unwrap();
    let start = bytes(folder.path()).len();
    journal.append(b"loose", 0, false).unwrap();
    journal.append(b"firm", 0, true).unwrap();
    journal.append(b"last", 0, false).unwrap();
    drop(journal);
    let mut damaged = bytes(folder.path());
    damaged[start + FRAME_HEADER] ^= 1;
    fs::write(file(folder.path(), 1), &damaged).unwrap();
    assert!(matches!(
        open(folder.path(), WriteMode::Plain),
        Err(RecoverError::Corrupt { .. })
    ));
}

/// fsyncgate: the kernel may call a page clean that never reached the disk, so a failed file is not trusted again.
#[test]
fn after_a_failed_sync_the_frames_go_into_a_new_file_once() {
    for write_mode in [WriteMode::Plain, WriteMode::Auto] {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let (mut journal, ..) = open_with(folder.path(), write_mode, Some(disk.clone())).unwrap();
        journal.append(b"good", 0, true).unwrap();
        journal.append(b"loose", 0, false).unwrap();
        disk.failing.lock().unwrap().push(FaultPoint::Sync);
        assert!(journal.append(b"failed", 0, true).is_err());
        assert!(journal.is_broken());
        disk.failing.lock().unwrap().push(FaultPoint::CreateJournal);
        assert!(journal.mend().is_err(), "there is no room for a new file");
        // A restart now would read what is there; a repetition writes it for good.
        disk.failing.lock().unwrap().clear();
        assert!(
            journal.sync().is_err() && journal.is_broken(),
            "a sync that succeeds now proves nothing"
        );
        journal.mend().unwrap();
        journal.append(b"next", 0, true).unwrap();
        assert_eq!(journal.generation(), 2);
        drop(journal);
        let expected = [
            b"good".to_vec(),
            b"loose".to_vec(),
            b"failed".to_vec(),
            b"next".to_vec(),
        ];
        assert_eq!(bodies(folder.path()), expected, "each once");
        // Whether the old file kept the unpromised frames or not.
        let old = fs::read(file(folder.path(), 1)).unwrap();
        let promised = FILE_HEADER + FRAME_HEADER + b"good".len();
        fs::write(file(folder.path(), 1), &old[..promised]).unwrap();
        assert_eq!(bodies(folder.path()), expected);
    }
}

#[test]
fn a_frame_cut_by_a_full_disk_is_written_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let (mut journal, ..) = open_with(folder.path(), WriteMode::Auto, Some(disk.clone())).unwrap();
    journal.append(b"good", 0, true).unwrap();
    *disk.cut.lock().unwrap() = Some(FRAME_HEADER + 2);
    assert!(journal.append(b"failed", 0, true).is_err());
    *disk.cut.lock().unwrap() = None;
    journal.mend().unwrap();
    drop(journal);
    assert_eq!(
        bodies(folder.path()),
        [b"good".to_vec(), b"failed".to_vec()]
    );
}

#[test]
fn a_file_that_lost_what_it_promised_is_not_mended() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let (mut journal, ..) = open_with(folder.path(), WriteMode::Plain, Some(disk.clone())).unwrap();
    journal.append(b"good", 0, true).unwrap();
    disk.failing.lock().unwrap().push(FaultPoint::Sync);
    assert!(journal.append(b"failed", 0, true).is_err());
    disk.failing.lock().unwrap().clear();
    let mut damaged = bytes(folder.path());
    damaged[FILE_HEADER + FRAME_HEADER] ^= 1;
    fs::write(file(folder.path(), 1), &damaged).unwrap();
    assert!(matches!(journal.mend(), Err(RecoverError::Corrupt { .. })));
}

#[test]
fn a_second_opener_is_refused() {
    let path = tempfile::tempdir().unwrap();
    let folder = Folder::new(path.path());
    let _first = folder.lock(&None).unwrap();
    assert!(matches!(
        folder.lock(&None),
        Err(RecoverError::InUse { .. })
    ));
}

/// Broke: the header was written behind what had been read, and the next start called it damaged.
#[test]
fn a_last_file_with_a_torn_header_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), WriteMode::Plain).unwrap());
    fs::write(file(folder.path(), 1), [0xff; FILE_HEADER]).unwrap();
    let (mut journal, found) = open(folder.path(), WriteMode::Plain).unwrap();
    assert!(found.is_empty());
    journal.append(b"first", 0, true).unwrap();
    drop(journal);
    assert_eq!(bodies(folder.path()), [b"first"]);
}

/// Broke: what was queued stayed in the ring, was submitted with the next frame (the old place, the new bytes), and its completions were
/// taken for those of the next frame.
#[test]
fn a_ring_that_fails_is_never_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let (mut journal, ..) = open_with(folder.path(), WriteMode::Auto, Some(disk.clone())).unwrap();
    journal.append(b"first", 0, true).unwrap();
    disk.failing.lock().unwrap().push(FaultPoint::SubmitRing);
    let has_ring = matches!(journal.writer, Writer::Uring(_));
    assert_eq!(journal.append(b"second", 0, true).is_err(), has_ring);
    assert!(matches!(journal.writer, Writer::Plain) || !has_ring);
    if has_ring {
        journal.mend().unwrap();
    }
    journal.append(b"third", 0, true).unwrap();
    drop(journal);
    assert_eq!(
        bodies(folder.path()),
        [b"first".as_slice(), b"second", b"third"]
    );
}
