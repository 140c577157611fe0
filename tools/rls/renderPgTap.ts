/** The matrix as pgTAP files for `supabase test db`: one a schema, each complete in itself and rolled back. */
import {
  functions,
  generatedFunctions,
  roles,
  schemas,
  sequences,
  tables,
  type Uses,
} from '../../tests/rls/matrix.ts'
import { type Assertions, databaseRole, tableCells, usesCells } from './pgTap/cells.ts'
import { preamble } from './pgTap/preamble.ts'
import { quoted, textArray } from './pgTap/sql.ts'

/** By their names in `supabase/tests`. A schema that the declaration says nothing of has none. */
export function renderPgTap(): Map<string, string> {
  const files = new Map<string, string>()
  for (const schema of schemas) {
    const declared = {
      tables: ofSchema(tables, schema),
      sequences: ofSchema(sequences, schema),
      functions: ofSchema(functions, schema),
      generated: ofSchema(generatedFunctions, schema),
    }
    if (Object.values(declared).every((names) => Object.keys(names).length === 0)) continue
    files.set(`rls_${schema}.test.sql`, renderSchema(schema, declared))
  }
  return files
}

interface Declared {
  tables: typeof tables
  sequences: typeof sequences
  functions: typeof functions
  generated: typeof generatedFunctions
}

function renderSchema(schema: string, declared: Declared): string {
  const parts: Assertions[] = [
    named(schema, declared),
    ...Object.entries(declared.tables).map(([table, rules]) => tableCells(table, rules)),
    usesCells(declared.sequences, 'sequence'),
    usesCells(declared.functions, 'function'),
    generatedCells(declared.generated),
  ].filter(({ count }) => count > 0)
  const count = parts.reduce((sum, part) => sum + part.count, 0)
  return `-- What: who may do what in schema ${schema}, tried for each role on rows that are made here and rolled back.
-- Why: for \`supabase test db\`. Generated from tests/rls/matrix.ts by \`npm run rls -- --write\`: change that.
-- Who: whoever may create pgTAP and write auth.users, as \`postgres\` of a local project may.

begin;

create extension if not exists pgtap with schema extensions;

set local search_path = public, extensions;

select plan(${count});

${preamble(Object.keys(declared.tables))}

${parts.map(({ sql }) => sql).join('\n\n')}

select * from finish();

rollback;
`
}

/** Nothing is there that nobody has thought of. */
function named(schema: string, declared: Declared): Assertions {
  const names = (of: object) => textArray(Object.keys(of), '    ')
  const signature = `'${schema}.' || regexp_replace(p.oid::regprocedure::text, '^${schema}\\.', '')`
  const generated = Object.keys(declared.generated).map((name) =>
    `\n    and ${signature} !~ ${quoted(pattern(name))}`
  )
  return {
    count: 3,
    sql: `select is_empty(
    $q$ select c.oid::regclass from pg_class as c
    where c.relnamespace = '${schema}'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity $q$,
    'row level security is on for every table of schema ${schema}'
);

select is_empty(
    $q$ select c.relname from pg_class as c
    where c.relnamespace = '${schema}'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and not c.relispartition
    and '${schema}.' || c.relname <> all (${names(declared.tables)}) $q$,
    'the declaration names every table and view of schema ${schema}'
);

select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = '${schema}'::regnamespace${generated.join('')}
    and ${signature} <> all (${names(declared.functions)}) $q$,
    'the declaration names every function of schema ${schema}'
);`,
  }
}

/** Functions that the database makes by itself have no names to call them by; those that are there are looked up. */
function generatedCells(uses: Record<string, Uses>): Assertions {
  const cells = Object.entries(uses).flatMap(([name, cells]) =>
    roles.map((role) => {
      const may = cells[role] === 'may'
      const right = `has_function_privilege(${quoted(databaseRole(role))}, p.oid, 'execute')`
      return `select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = '${name.split('.')[0]}'::regnamespace and p.oid::regprocedure::text ~ ${
        quoted(pattern(name))
      }
    and ${may ? 'not ' : ''}${right} $q$,
    ${quoted(`${role} ${may ? 'may' : 'may not'} use any ${name}`)}
);`
    })
  )
  return { count: cells.length, sql: cells.join('\n') }
}

/** `audit.record_*()`, where `*` is a number, as a regular expression. */
function pattern(name: string): string {
  return `^${name.replaceAll(/[.()[\]]/g, '\\$&').replaceAll('*', '\\d+')}$`
}

function ofSchema<T>(all: Record<string, T>, schema: string): Record<string, T> {
  return Object.fromEntries(Object.entries(all).filter(([name]) => name.startsWith(`${schema}.`)))
}
