//! The versions of HTTP that clients speak.

/// The version of HTTP on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

impl Protocol {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::H1, Self::H2];

    /// The value of the label `protocol`.
    pub fn label(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}
