//! The wall clock of a process, to be stepped while it runs. A small library is loaded into the process ahead of the system's
//! (`clock.c`), and adds what stands in a file. It needs a C compiler and no privileges.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::recorder::wall_ms;

/// A clock.
pub struct Clock {
    library: PathBuf,
    step: PathBuf,
}

impl Clock {
    /// A clock that is right, of a process with that name.
    pub fn create(folder: &Path, name: &str) -> Clock {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/clock.c");
        let library = folder.join("clock.so");
        if !library.exists() {
            let built = Command::new("cc")
                .args(["-shared", "-fPIC", "-O2", "-o"])
                .args([&library, &source])
                .output()
                .expect("a C compiler is needed; install it: apt-get install gcc");
            let said = String::from_utf8_lossy(&built.stderr);
            assert!(built.status.success(), "{said}");
        }
        let step = folder.join(format!("clock-{name}"));
        fs::write(&step, 0_i64.to_ne_bytes()).unwrap();
        Clock { library, step }
    }

    /// What the environment of the process must hold.
    pub fn preload(&self) -> Vec<String> {
        vec![
            format!("LD_PRELOAD={}", self.library.display()),
            format!("CHAOS_CLOCK={}", self.step.display()),
        ]
    }

    /// From now on it is wrong by so much. The file is mapped by the process: it must stay the same file.
    pub fn step(&self, ms: i64) {
        let file = File::options().write(true).open(&self.step).unwrap();
        file.write_all_at(&ms.to_ne_bytes(), 0).unwrap();
    }
}

#[test]
fn a_stepped_clock_shows_in_its_process_alone_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::create(folder.path(), "date");
    let shown = || {
        let words = [clock.preload(), vec!["date".to_owned(), "+%s".to_owned()]].concat();
        let said = Command::new("env").args(words).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        text.trim().parse::<i64>().unwrap()
    };
    // In whole seconds, as `date` says it.
    let stepped = |step: i64| (wall_ms() as i64 + step).div_euclid(1000);
    for step in [0, 90_500, -90_500, 0] {
        clock.step(step);
        // The child read its clock at some time between these two, however long it took to start and to end.
        let before = stepped(step);
        let shown = shown();
        let after = stepped(step);
        assert!(
            (before - 1..=after + 1).contains(&shown),
            "{step}: {shown} is not in {before}..={after}"
        );
    }
}
