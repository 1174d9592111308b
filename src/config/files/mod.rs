//! Files of settings: where they are, and in which order they count.

#[cfg(feature = "files")]
mod document;
#[cfg(feature = "files")]
mod location;
#[cfg(feature = "files")]
mod properties;
#[cfg(feature = "files")]
mod reader;
#[cfg(feature = "files")]
#[cfg(test)]
mod tests;
#[cfg(not(feature = "files"))]
mod unread;
#[cfg(feature = "files")]
mod yaml;

#[cfg(feature = "files")]
pub(super) use reader::load;
#[cfg(not(feature = "files"))]
pub(super) use unread::load;

/// Extensions of files, those with the highest precedence first.
const EXTENSIONS: [&str; 3] = ["properties", "yml", "yaml"];
