-- sysbench's oltp_read_write, with one login before its clients start: the MariaDB client library loads an
-- authentication plugin when it is first needed, and threads that need it at the same moment make each other fail
-- ("Plugin caching_sha2_password could not be loaded: it is already loaded").
require("oltp_read_write")

local check_options = init

function init()
   check_options()
   sysbench.sql.driver():connect():disconnect()
end
