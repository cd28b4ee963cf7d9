//! HTTP/1.1 over TLS or plain TCP, one thread per connection: small, strict, and able to misbehave on purpose.

pub mod http;
pub mod listen;
pub mod server;

pub use http::{Reply, Request};
pub use listen::Listen;
pub use server::{Admission, Server, Service, Wire};
