//! What kube's errors say, in one line: their own `Display` repeats the whole Status.

use kube::runtime::watcher;

/// The API server's message, or what went wrong on the way to it.
pub(crate) fn of_request(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => innermost(other),
    }
}

/// Why a watch broke off.
pub(crate) fn of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("list: {}", of_request(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            format!("watch: {}", of_request(error))
        }
        watcher::Error::WatchError(status) => format!("watch: {}", status.message),
        other @ watcher::Error::NoResourceVersion => other.to_string(),
    }
}

/// The last cause of a chain: "connection refused" rather than "transport error".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_is_what_people_need() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let outer = kube::Error::ReadEvents(refused);
        assert_eq!(of_request(&outer), "connection refused");
        let list = watcher::Error::InitialListFailed(outer);
        assert_eq!(of_watch(&list), "list: connection refused");
    }
}
