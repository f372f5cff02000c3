-- The installation of the embedded store that sells from this ledger: its name, its host and folder, since when.
CREATE TABLE sale_installs (
    kind    TEXT   NOT NULL PRIMARY KEY,
    install TEXT   NOT NULL,
    place   TEXT   NOT NULL,
    at_ms   BIGINT NOT NULL
);
