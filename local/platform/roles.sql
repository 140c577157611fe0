-- What: the roles a hosted database has, with their memberships and settings.
-- Why: migrations grant to them, policies name them, and `postgres` must be no superuser, as on a hosted project.
-- Who: they belong to the whole server; what exists already is left as it is, for other databases may rely on it.

create or replace function pg_temp.ensure_role(p_name text, p_attributes text)
returns void
language plpgsql
set search_path = ''
as $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = p_name) then
        execute pg_catalog.format('create role %I %s', p_name, p_attributes);
    end if;
end;
$$;

-- Sets a default only where nobody has chosen another one.
create or replace function pg_temp.ensure_setting(p_role text, p_name text, p_value text)
returns void
language plpgsql
set search_path = ''
as $$
begin
    if not exists (
        select
        from pg_catalog.pg_db_role_setting as stored
        cross join lateral pg_catalog.unnest(stored.setconfig) as line
        where stored.setrole = p_role::pg_catalog.regrole
        and stored.setdatabase = 0
        and pg_catalog.split_part(line, '=', 1) = p_name
    ) then
        -- A list of names (search_path) takes no quotes around the whole.
        execute pg_catalog.format(
            'alter role %I set %I to ' || case when p_name = 'search_path' then '%s' else '%L' end,
            p_role, p_name, p_value
        );
    end if;
end;
$$;

select pg_temp.ensure_role('supabase_admin', 'nologin superuser createdb createrole replication bypassrls');
select pg_temp.ensure_role('postgres', 'login createdb createrole replication bypassrls');
select pg_temp.ensure_role('anon', 'nologin inherit');
select pg_temp.ensure_role('authenticated', 'nologin inherit');
select pg_temp.ensure_role('service_role', 'nologin inherit bypassrls');
select pg_temp.ensure_role('authenticator', 'login noinherit');
select pg_temp.ensure_role('supabase_auth_admin', 'login noinherit createrole');
select pg_temp.ensure_role('dashboard_user', 'nologin createdb createrole replication');

do $$
begin
    -- A migration cut short while it created an event trigger may have left it a superuser. The role that made the
    -- server (number 10) cannot be anything else, and nobody takes the right from themselves.
    if exists (select from pg_catalog.pg_roles where rolname = 'postgres' and rolsuper and oid <> 10)
        and current_user <> 'postgres'
    then
        alter role postgres nosuperuser;
    end if;
end;
$$;

grant anon, authenticated, service_role to authenticator, postgres;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;

do $$
begin
    -- From PostgreSQL 16 on; a hosted project grants it too.
    if exists (select from pg_catalog.pg_roles where rolname = 'pg_create_subscription') then
        grant pg_create_subscription to postgres;
    end if;
end;
$$;

select pg_temp.ensure_setting('anon', 'statement_timeout', '3s');
select pg_temp.ensure_setting('authenticated', 'statement_timeout', '8s');
select pg_temp.ensure_setting('authenticator', 'statement_timeout', '8s');
select pg_temp.ensure_setting('authenticator', 'lock_timeout', '8s');
select pg_temp.ensure_setting('postgres', 'search_path', '"$user", public, extensions');
select pg_temp.ensure_setting('supabase_admin', 'search_path', '"$user", public, auth, extensions');
select pg_temp.ensure_setting('supabase_auth_admin', 'search_path', 'auth');
