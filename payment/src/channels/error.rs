//! Why a channel is not asked.

use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The channel has not answered for a while. Nothing was charged; the caller comes back later.
    #[error("the payment channel is unavailable")]
    Unavailable {
        /// When it will be asked again.
        retry_after: Duration,
    },
    /// The charge was made by a channel that this process does not have. The operator must configure it again.
    #[error("no such payment channel channel={name}")]
    Unregistered { name: String },
}
