import { QueryClientProvider } from '@tanstack/preact-query';
import { render } from 'preact';
import { App } from './app';
import { client } from './lib/store';
import './style.css';

const root = document.getElementById('app');
if (!root) throw new Error('index.html has lost its #app');
render(
  <QueryClientProvider client={client}>
    <App />
  </QueryClientProvider>,
  root,
);
