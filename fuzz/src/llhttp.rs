//! A second opinion about HTTP/1: [llhttp](https://llhttp.org), which reads it in Node.js.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

/// A message as llhttp reads it.
#[derive(Debug, Default)]
pub struct Message {
    /// Of a request.
    pub method: String,
    /// Of a request.
    pub target: Vec<u8>,
    /// Of an answer.
    pub status: c_int,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: c_int,
    /// All of them.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// As far as it is there, without its coding.
    pub body: Vec<u8>,
    /// Where it ends.
    pub length: usize,
    /// Whether it is there as a whole.
    pub is_complete: bool,
    /// Whether its body is not one.
    pub is_refused: bool,
}

/// What is read, and how strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// A request, with all the leniency that llhttp has to offer.
    LenientRequest,
    /// An answer; one to `HEAD` has no body.
    Answer { to_head: bool },
}

/// Reads the message at the beginning of `bytes`; nothing if not even its head is there.
pub fn read(bytes: &[u8], kind: Kind) -> Option<Message> {
    let mut message = Message::default();
    let mut field = (Vec::new(), Vec::new());
    let mut parts = Parts {
        message: &mut message,
        field: &mut field,
    };
    let mut outcome = Outcome {
        method: ptr::null(),
        length: 0,
        has_head: 0,
        is_complete: 0,
        is_refused: 0,
        minor: 0,
        status: 0,
    };
    // SAFETY: the bytes are as long as is said, `told` gets back what it is given, and the outcome is written to before
    // this returns and not after.
    unsafe {
        egret_llhttp(
            bytes.as_ptr().cast(),
            bytes.len(),
            c_int::from(!matches!(kind, Kind::Answer { .. })),
            c_int::from(kind == Kind::LenientRequest),
            c_int::from(kind == Kind::Answer { to_head: true }),
            told,
            (&raw mut parts).cast(),
            &mut outcome,
        );
    }
    // SAFETY: it is one of llhttp's constants.
    let method = unsafe { CStr::from_ptr(outcome.method) };
    message.method = method.to_string_lossy().into_owned();
    message.status = outcome.status;
    message.minor = outcome.minor;
    message.length = outcome.length;
    message.is_complete = outcome.is_complete == 1;
    message.is_refused = outcome.is_refused == 1;
    (outcome.has_head == 1).then_some(message)
}

struct Parts<'a> {
    message: &'a mut Message,
    field: &'a mut (Vec<u8>, Vec<u8>),
}

extern "C" fn told(to: *mut c_void, part: c_int, at: *const c_char, length: usize) {
    // SAFETY: `read` passed this, and has it to itself.
    let parts = unsafe { &mut *to.cast::<Parts<'_>>() };
    let bytes = match at.is_null() {
        true => &[],
        // SAFETY: llhttp says where a part is, in what it was given.
        false => unsafe { std::slice::from_raw_parts(at.cast::<u8>(), length) },
    };
    match part {
        TARGET => parts.message.target.extend_from_slice(bytes),
        NAME => parts.field.0.extend_from_slice(bytes),
        VALUE => parts.field.1.extend_from_slice(bytes),
        FIELD => parts.message.fields.push(std::mem::take(parts.field)),
        _ => parts.message.body.extend_from_slice(bytes),
    }
}

const TARGET: c_int = 0;
const NAME: c_int = 1;
const VALUE: c_int = 2;
const FIELD: c_int = 3;

#[repr(C)]
struct Outcome {
    method: *const c_char,
    length: usize,
    has_head: c_int,
    is_complete: c_int,
    is_refused: c_int,
    minor: c_int,
    status: c_int,
}

unsafe extern "C" {
    fn egret_llhttp(
        data: *const c_char,
        length: usize,
        is_request: c_int,
        is_lenient: c_int,
        has_no_body: c_int,
        told: extern "C" fn(*mut c_void, c_int, *const c_char, usize),
        to: *mut c_void,
        outcome: *mut Outcome,
    );
}
