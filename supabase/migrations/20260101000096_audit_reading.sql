-- What: the trail as people read it, who may read it, and audit.record for what happened without a row being changed.
-- Why: a trail that only its author can query answers nobody's question.
-- Who: admins, by their JWT, and `postgres` read. Not service_role: a leaked key shall not tell what everybody did.

-- Each column is what it was at the change: '***' where it is masked, null (of SQL) where there was no row.
create or replace function audit.changed_values(p_details jsonb)
returns table (column_name text, before jsonb, after jsonb)
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select name.of, p_details #> '{row,old}' -> name.of, p_details #> '{row,new}' -> name.of
    from jsonb_object_keys(
        coalesce(p_details #> '{row,old}', '{}') || coalesce(p_details #> '{row,new}', '{}')
    ) as name (of)
    where not p_details -> 'row' ?& '{old,new}'
        or (
            p_details #> '{row,old}' ? name.of
            and (
                p_details #> '{row,old}' -> name.of is distinct from p_details #> '{row,new}' -> name.of
                -- A masked column looks the same before and after. It is in an UPDATE because it changed, unless
                -- the table is recorded with whole rows: then other columns look the same, too.
                or not exists (
                    select
                    from jsonb_each(p_details #> '{row,old}') as o (key, value)
                    where o.value = p_details #> '{row,new}' -> o.key
                    and o.value <> '"***"'
                )
            )
        )
$$;

comment on function audit.changed_values(jsonb) is
    'What a change of a row did to each column, from its details: all columns of an INSERT or DELETE, the changed ones '
    'of an UPDATE, none of anything else.';


-- A function, since a view of auth.users would stand in the way of the platform''s own migrations.
create or replace function audit.email_of(p_user_id uuid)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select nullif(u.email, '')::text
    from auth.users as u
    where u.id = p_user_id
$$;

comment on function audit.email_of(uuid) is 'The e-mail a user has now; null for one who was deleted.';


create view audit.changes
with (security_invoker = on)
as
select
    c.id,
    c.occurred_at,
    coalesce(audit.email_of(c.actor_id), c.actor_id::text, c.details ->> 'actor', c.actor_role) as actor,
    c.operation,
    c.object_identity,
    c.primary_key,
    case c.operation
        when 'UPDATE' then array(select v.column_name from audit.changed_values(c.details) as v order by v.column_name)
    end as changed,
    c.details #> '{row,old}' as old,
    c.details #> '{row,new}' as new,
    c.details #>> '{event,action}' as action,
    c.actor_id,
    audit.email_of(c.actor_id) as actor_email,
    c.actor_role,
    host(c.ip) as ip,
    c.user_agent,
    c.request_id,
    c.function_name,
    c.transaction_id,
    c.details
from audit.database_changes as c;

comment on view audit.changes is
    'Every change as a person reads it. Give it a time, an id or a key: it is as large as the trail.';
comment on column audit.changes.actor is 'E-mail, else id, of who did it; the role where nobody was signed in.';
comment on column audit.changes.changed is 'The columns an UPDATE changed.';
comment on column audit.changes.old is 'Before: the whole row of a DELETE, the changed columns of an UPDATE.';
comment on column audit.changes.new is 'After: the whole row of an INSERT, key and changed columns of an UPDATE.';
comment on column audit.changes.action is 'Of an EVENT: what audit.record was told.';


-- The role is asked of the setting: inside of a security definer function current_user is its owner.
create or replace function audit.require_reader()
returns void
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_role text := coalesce(nullif(current_setting('role', true), 'none'), session_user);
begin
    if not (v_role = 'authenticated' and holdfast.is_admin()) and not pg_has_role(v_role, current_user, 'member') then
        raise exception 'Only an admin may read the audit trail; this is the role %', v_role
            using errcode = '42501',
                hint = 'app_metadata.role must be "admin" in the JWT, when it is issued; or ask by SQL as postgres.';
    end if;
end;
$$;

comment on function audit.require_reader() is
    'Raises 42501 unless the caller is signed in with an admin''s JWT, or may be the owner of the trail.';


create or replace function audit.note_reading(p_function text, p_question jsonb)
returns void
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Whoever has SQL as the owner can read the table itself, so a note of their questions would promise too much.
    if current_setting('role', true) = 'authenticated' then
        perform audit.record(
            'audit.read', 'audit.database_changes', null, null,
            jsonb_build_object('function', p_function) || p_question
        );
    end if;
exception
    -- On a standby nothing can be written, and the trail must be readable while it cannot be written.
    when others then perform audit.count_gap('audit.database_changes', 'EVENT', sqlstate, sqlerrm);
end;
$$;

comment on function audit.note_reading(text, jsonb) is
    'Records the event audit.read with what an admin asked for. Never makes the reading fail: what cannot be recorded is a gap.';


-- In the transaction of the work it tells of. Who did it is taken from the request, never from what the caller says.
create or replace function audit.record(
    p_action text,
    p_resource_type text,
    p_resource_id text default null,
    p_changes jsonb default null,
    p_metadata jsonb default null
)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_length integer;
    v_max integer;
    v_id bigint;
begin
    for v_name, v_length, v_max in
        values ('action', char_length(btrim(p_action)), 100),
            ('resource_type', char_length(btrim(p_resource_type)), 100)
    loop
        if v_length is null or v_length not between 1 and v_max then
            raise exception 'Cannot record the event: % must have 1 to % characters', v_name, v_max
                using errcode = 'PT400';
        end if;
    end loop;
    for v_name, v_length, v_max in
        values ('resource_id', octet_length(p_resource_id), 1000),
            ('changes', octet_length(p_changes::text), 65536),
            ('metadata', octet_length(p_metadata::text), 65536)
    loop
        if v_length > v_max then
            raise exception 'Cannot record the event "%": % has % bytes, more than the % it may have',
                p_action, v_name, v_length, v_max
                using errcode = 'PT400';
        end if;
    end loop;

    insert into audit.database_changes (
        occurred_at, transaction_id, actor_id, actor_role, ip, user_agent, request_id, function_name,
        schema_name, table_name, object_identity, operation, primary_key, details
    )
    select clock_timestamp(), txid_current(), w.actor_id, w.actor_role, w.ip, w.user_agent, w.request_id, w.function_name,
        'application', p_resource_type, p_resource_type, 'EVENT', p_resource_id,
        jsonb_build_object('event', jsonb_build_object(
            'action', p_action,
            'resource_type', p_resource_type,
            'resource_id', p_resource_id,
            'changes', p_changes,
            'metadata', p_metadata
        )) || coalesce(w.extra, '{}')
    from audit.writer() as w
    returning id into v_id;

    return v_id;
end;
$$;

comment on function audit.record(text, text, text, jsonb, jsonb) is
    'Adds an event to the trail, in this transaction, and returns its id. Action and resource type have at most 100 '
    'characters, the resource''s id 1,000 bytes, changes and metadata 64 KiB each: PT400 beyond. Nothing is masked: '
    'give it no secrets.';

grant execute on function audit.record(text, text, text, jsonb, jsonb) to authenticated, service_role;
