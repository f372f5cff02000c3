//! The name of a store's installation: made once with its folder, kept beside the journal, registered in the ledger
//! by a process that opens both. Two folders of the same path on two hosts have two names.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    path::Path,
};

use super::folder::Folder;

/// Begins as the journal's files do, so that it is removed with them. It is no part of an image: a restored store is another one.
const FILE: &str = "journal.install";
const DIGITS: usize = 32;

/// Reads the name of a folder's installation, and makes one where there is none. 32 hexadecimal digits. Call it for an
/// open store: its lock keeps others out.
pub fn installation(folder: &Path) -> io::Result<String> {
    let path = folder.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let id = text.trim().to_owned();
            if id.len() == DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Ok(id);
            }
            let why = format!(
                "{}: not the name of an installation: {id:?}",
                path.display()
            );
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = format!("{:032x}", rand::random::<u128>());
    let unfinished = folder.join(format!("{FILE}.tmp"));
    let mut file = File::create(&unfinished)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    Folder::new(folder).sync_names()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let made = installation(folder.path()).unwrap();
        assert_eq!(installation(folder.path()).unwrap(), made);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(installation(other.path()).unwrap(), made);
        std::fs::write(folder.path().join(FILE), "").unwrap();
        let refused = installation(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(FILE), "{refused}");
    }
}
