//! Packets across, both ways, in bounded memory.
