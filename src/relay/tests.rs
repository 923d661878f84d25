mod captures;
mod model;
mod sockets;
mod tls;
mod translation;
