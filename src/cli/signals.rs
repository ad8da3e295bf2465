//! Signals that would end the process without a word.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGBUS, SIGXFSZ};
use signal_hook::{flag, low_level};

const NO_ROOM: &str = "curvkit: device memory: the driver found no room for it; where it keeps memory in files, a limit on their size (ulimit -f) or a full disk leaves none";

/// Lets a write beyond the limit on files' sizes (`ulimit -f`) be an error like that of a full disk, and a driver that
/// touches memory beyond it end the process with a message and exit code 2.
///
/// Where a signal can have no handler, all is as it was.
pub fn handle() {
    // a signal that has a handler ends nothing: the write fails
    let _ = flag::register(SIGXFSZ, Arc::default());
    // the thread that touched the memory gets no further; this one waits for word of it
    if let Ok((mut word, handler)) = UnixStream::pair()
        && low_level::pipe::register(SIGBUS, handler).is_ok()
    {
        thread::spawn(move || {
            if word.read(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                super::stderr::tell(NO_ROOM);
                low_level::exit(2);
            }
        });
    }
}
