//! Enums whose variants have words: in the ledger, on the wire, in metrics.

/// Declares an enum with its words, which are its only spelling.
#[macro_export]
macro_rules! words {
    ($(#[$about:meta])* $vis:vis enum $type:ident {
        $($(#[$variant:meta])* $name:ident = $word:literal,)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $type {
            $($(#[$variant])* $name,)*
        }

        impl $type {
            /// All of them.
            $vis const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];

            /// The word for it.
            $vis fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.into_iter().find(|known| known.as_str() == text);
                found.ok_or_else(|| format!("unknown word {text:?}"))
            }
        }
    };
}
