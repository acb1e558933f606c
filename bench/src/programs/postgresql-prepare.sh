# A cluster with the tables of pgbench, owned by the user postgres where root measures. Each run gets a
# copy as it was made: one that was killed leaves a cluster to recover, and maybe one that cannot start.
if [ -d postgresql ]; then
    rm -rf postgresql/data postgresql/log
    cp -a postgresql/made postgresql/data
    exit
fi
programs=$(ls -d /usr/lib/postgresql/*/bin | head -1)
as() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; else "$@"; fi
}
mkdir postgresql
chmod 755 .
if [ "$(id -u)" = 0 ]; then chown postgres postgresql; fi
cd postgresql
as "$programs/initdb" -D data --no-sync > /dev/null 2>&1
as "$programs/pg_ctl" -D data -s -w -o "-k $PWD -c listen_addresses=''" -l log start
as pgbench -h "$PWD" -q -i -s 5 postgres > /dev/null 2>&1
as "$programs/pg_ctl" -D data -s -m fast stop
cp -a data made
