//! Classification of the results of calls: responses, errors, and the end of a call.

mod error;
mod http;
mod observe;

pub use self::http::{ClassifyHttp, DefaultClassifier, HttpCompletion, HttpResponses, ResponseBody};
pub use self::observe::{AnyResponse, Observe};

pub(crate) use self::error::{CallerFault, is_callers_fault, is_overload, is_unprocessed, outcome};
pub(crate) use self::http::is_grpc;
