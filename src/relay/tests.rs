mod captures;
mod model;
mod sockets;
mod translation;
