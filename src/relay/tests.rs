mod captures;
mod sockets;
mod translation;
