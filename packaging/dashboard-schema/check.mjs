// node check.mjs DASHBOARD.json…: each dashboard as TypeScript literals, held against the types of @grafana/schema of the first and the
// last minor version of Grafana 10 to 13. What one of them does not know, or knows as another type, is an error.
import fs from 'node:fs'; import path from 'node:path'; import { spawnSync } from 'node:child_process';

const PANELS = { timeseries: ['timeseries', 'TimeSeries'], stat: ['stat', 'Stat'], table: ['table', 'Table'], text: ['text', 'Text'] };
// 10.0 has no types for the options of panels; the enums of others are taken by name or by value, and no field is required.
const LOOSE = 'type Loose<T> = T extends (infer U)[] ? Loose<U>[] : T extends object ? { [K in keyof T]?: Loose<T[K]> } : T extends string ? T | `${T}` : T extends number ? T : T;\n';
const json = (value) => JSON.stringify(value, null, 1);
const within = (schema, ...candidates) => candidates.map((one) => path.join('node_modules', schema, one)).find((one) => fs.existsSync(one));

function options(schema, kind) {
  const directory = within(schema, `dist/types/raw/composable/${kind}/panelcfg/x`, `dist/esm/raw/composable/${kind}/panelcfg/x`);
  const file = directory && fs.readdirSync(directory).find((name) => name.endsWith('types.gen.d.ts'));
  return file && path.join(directory, file);
}

// `custom.width` and the like of overrides, as one literal of the panel's own field options.
function customs(panel) {
  const found = [panel.fieldConfig?.defaults?.custom ?? {}];
  for (const override of panel.fieldConfig?.overrides ?? []) {
    const own = override.properties.filter((one) => one.id.startsWith('custom.'));
    found.push(Object.fromEntries(own.map((one) => [one.id.slice('custom.'.length), one.value])));
  }
  return found;
}

// What the Prometheus data source reads from an annotation: its own fields, which 10.0 to 13 look for here, beside those of Grafana.
const PROMETHEUS = ['expr', 'step', 'titleFormat', 'textFormat', 'tagKeys', 'useValueForTime'];
// What the types of 10.0 have not and Grafana 10.0 writes: annotations and variables as they are, and null for the lowest threshold.
const incomplete = (schema) => schema === 'schema-10.0';
function known(schema, key, value) {
  if (key === 'annotations') { return { list: incomplete(schema) ? [] : value.list.map((one) => Object.fromEntries(Object.entries(one).filter(([name]) => !PROMETHEUS.includes(name)))) }; }
  if (incomplete(schema) && key === 'templating') { return undefined; }
  if (incomplete(schema) && key === 'steps') { return value.map((step) => ({ ...step, value: step.value ?? 0 })); }
  return value;
}

function literals(written, schema) {
  const dashboard = JSON.parse(JSON.stringify(written, (key, value) => known(schema, key, value)));
  const { panels, ...rest } = dashboard; const types = new Set(); let body = `export const dashboard: Loose<S.Dashboard> = ${json(rest)};\n`;
  const all = panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]).filter((panel) => panel.type !== 'row');
  for (const [at, panel] of all.entries()) {
    if (!(panel.type in PANELS)) { throw new Error(`${panel.title}: no panel type ${panel.type} in ${Object.keys(PANELS)}`); }
    const [kind, name] = PANELS[panel.type]; const { options: own, fieldConfig, targets, datasource, ...chrome } = panel; const { custom, ...defaults } = fieldConfig?.defaults ?? {};
    body += `// ${panel.title}\nexport const p${at}: Loose<S.Panel> = ${json(chrome)};\nexport const f${at}: Loose<S.FieldConfig> = ${json(defaults)};\n`;
    const file = options(schema, kind);
    if (file) { types.add(`import type * as ${name} from "./${file.replace(/\.d\.ts$/, '')}";\n`); body += `export const o${at}: Loose<${name}.Options> = ${json(own ?? {})};\n`; }
    const fields = { timeseries: 'S.GraphFieldConfig', table: 'S.TableFieldOptions' }[panel.type];
    if (fields) { body += `export const c${at}: Loose<${fields}>[] = ${json(customs(panel))};\n`; }
  }
  return [...types].join('') + LOOSE + body;
}

let failed = 0; const schemas = Object.keys(JSON.parse(fs.readFileSync('package.json')).dependencies).filter((name) => name.startsWith('schema-'));
for (const schema of schemas) {
  const version = JSON.parse(fs.readFileSync(`node_modules/${schema}/package.json`)).version;
  const index = within(schema, 'dist/types/index.d.ts', 'dist/cjs/index.d.cts', 'dist/index.d.ts');
  const files = process.argv.slice(2).map((file) => {
    const name = `check-${path.basename(file, '.json')}.ts`;
    fs.writeFileSync(name, `import type * as S from "@grafana/schema";\n${literals(JSON.parse(fs.readFileSync(file)), schema)}`); return name;
  });
  const compiler = { strict: true, noEmit: true, skipLibCheck: true, module: 'esnext', moduleResolution: 'bundler', target: 'es2022', types: [], paths: { '@grafana/schema': [`./${index}`] } };
  fs.writeFileSync('tsconfig.json', json({ compilerOptions: compiler, files }));
  const said = spawnSync('node', ['node_modules/typescript/lib/tsc.js', '-p', '.'], { encoding: 'utf8' });
  console.log(said.status === 0 ? `@grafana/schema ${version}: ok` : `@grafana/schema ${version}:\n${said.stdout}${said.stderr}`); failed += said.status === 0 ? 0 : 1;
}
process.exit(failed ? 1 : 0);
