//! Files that are read again while the process runs.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Opens a regular file for reading. Others are an error, since the open or the read of a FIFO may
/// block for ever.
pub(crate) fn open(path: &Path) -> Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    File::open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn fifo_without_a_writer_is_refused_at_once() {
        let path = std::env::temp_dir().join(format!("tower-eureka-fifo-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = open(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error.to_string(), "it is not a regular file");
        assert!(open(Path::new("Cargo.toml")).is_ok());
    }
}
